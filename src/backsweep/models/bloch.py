"""Bloch equations of spins that do not interact, under RF and gradient waveforms.

A use of the engine: the step below is what a user would write. Waveforms are constant in each
interval; the rotation about the field of an interval is exact, relaxation is split symmetrically
around it (an error of second order in the interval, and none without RF). Left out: diffusion,
flow, exchange, transmit and receive sensitivities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.models.spins import Sequence, Spins, as_array, check, check_shape
from backsweep.runtime.checkpointing import Checkpointing

#: Gyromagnetic ratio of the proton [rad/s/T], CODATA 2022.
GAMMA = 2.6752218708e8
# Added to squared half angles [rad^2]: below rounding, but the square root keeps a derivative.
_TINY = 1e-20

Array = Any

__all__ = ["GAMMA", "Sequence", "Spins", "check", "simulate"]


def simulate(
    spins: Spins,
    sequence: Sequence,
    *,
    initial: tuple[Array, Array] | None = None,
    gamma: float = GAMMA,
    checkpointing: Checkpointing | None = None,
) -> tuple[tuple[Array, Array], Array]:
    """Magnetisation at the end of a sequence, and the signal at its samples.

    Parameters
    ----------
    spins : Spins
    sequence : Sequence
        Every array of both may be traced, `adc_steps` excepted.
    initial : (ndarray, shape (n,), complex; ndarray, shape (n,)), optional
        Mx + i My and Mz at the start; equilibrium by default.
    gamma : float [rad/s/T]
    checkpointing : Checkpointing, optional
        Of the time loop, see `backsweep.scan`.

    Returns
    -------
    (m_xy, m_z) : ndarray, shape (n,), complex; ndarray, shape (n,)
        Mx + i My and Mz at the end.
    signal : ndarray, shape (n_samples,), complex
        Sum over the spins of Mx + i My, times exp(-i adc_phase). In a gradient it costs
        nothing if unused.

    Raises
    ------
    ModelError
        See `check`.

    Notes
    -----
    dM/dt = gamma M x B - (Mx, My, 0) / T2 + (0, 0, M0 - Mz) / T1 with B = (B1x, B1y, G . r +
    off_resonance / gamma): precession is left-handed, Mx + i My turns as exp(-i gamma Bz t), and
    RF along x turns M from z to y. Results are of single precision if position, RF and gradient
    are. Cost per spin and step: a square root, sine, cosine, two exponentials; 24 bytes of state.

    References
    ----------
    .. [1] F. Bloch, Nuclear Induction, Phys. Rev. 70, 460 (1946),
       doi:10.1103/PhysRev.70.460.
    """
    check(spins, sequence)
    position = as_array(spins.position)
    rf, gradient = as_array(sequence.rf), as_array(sequence.gradient)
    real = np.result_type(position.dtype, rf.real.dtype, gradient.dtype)
    real = np.dtype(np.float32) if real == np.float32 else np.dtype(np.float64)
    x, y, z = (position[:, k].astype(real) for k in range(3))
    m0, t1, t2, off = (
        as_array(v).astype(real) for v in (spins.m0, spins.t1, spins.t2, spins.off_resonance)
    )
    r1, r2 = 1 / t1, 1 / t2
    half = 0.5 * as_array(sequence.durations)  # s

    def step(state: Array, waveforms: Array) -> Array:
        # Half angles [rad] of the rotations about each axis; q: vector part of the quaternion.
        mx, my, mz = state
        ax, ay, g, half = waveforms
        az = g[0] * x + g[1] * y + g[2] * z + half * off
        angle = np.sqrt(ax * ax + ay * ay + az * az + _TINY)
        cosine, sinc = np.cos(angle), np.sin(angle) / angle
        qx, qy, qz = sinc * ax, sinc * ay, sinc * az
        e1, e2 = np.exp(-half * r1), np.exp(-half * r2)
        mx, my, mz = e2 * mx, e2 * my, m0 + e1 * (mz - m0)
        tx, ty, tz = _cross(2 * mx, 2 * my, 2 * mz, qx, qy, qz)
        ux, uy, uz = _cross(tx, ty, tz, qx, qy, qz)
        mx = e2 * (mx + cosine * tx + ux)
        my = e2 * (my + cosine * ty + uy)
        mz = m0 + e1 * (mz + cosine * tz + uz - m0)
        return (mx, my, mz), (np.sum(mx), np.sum(my))

    xs = (
        (gamma * half * rf.real).astype(real),
        (gamma * half * rf.imag).astype(real),
        (gamma * half[:, None] * gradient).astype(real),
        half.astype(real),
    )
    (mx, my, mz), (sum_x, sum_y) = scan(
        step, _start(initial, m0, x), xs, checkpointing=checkpointing
    )
    signal = sum_x + 1j * sum_y
    if sequence.adc_steps is not None:
        signal = signal[np.asarray(sequence.adc_steps)]
    phase = as_array(sequence.adc_phase).astype(real)
    return (mx + 1j * my, mz), signal * (np.cos(phase) - 1j * np.sin(phase))


def _cross(
    ax: Array, ay: Array, az: Array, bx: Array, by: Array, bz: Array
) -> tuple[Array, Array, Array]:
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def _start(initial: tuple[Array, Array] | None, m0: Array, x: Array) -> tuple[Array, Array, Array]:
    """Mx, My, Mz at the start, of the shape and dtype of x."""
    zero = np.zeros(x.shape, x.dtype)
    if initial is None:
        return zero, zero, m0 + zero
    m_xy, m_z = (as_array(v) for v in initial)
    check_shape("initial[0]", m_xy, x.shape, kinds="fc")
    check_shape("initial[1]", m_z, x.shape)
    return m_xy.real.astype(x.dtype), m_xy.imag.astype(x.dtype), m_z.astype(x.dtype)
