"""Acoustic waves in plain NumPy with a sponge: the step of `marmousi2.py`, simple to write by hand.

Pressure u(z, x) with constant density obeys  u_tt + s u_t = c^2 (u_zz + u_xx) + w, second order
in time and eighth in space. The model lies inside a frame of FRAME points in which the sponge s
damps what leaves it; the frame continues the model's edge.
"""

from __future__ import annotations

import numpy as np

import backsweep as bs

FRAME = 30
#: Central eighth-order coefficients of the second derivative, offsets 0 to 4.
COEFFICIENTS = (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560)


def laplacian(u):
    """Of u with spacing 1, without the 4 outer points."""
    total = 2 * COEFFICIENTS[0] * u[4:-4, 4:-4]
    for k in range(1, 5):
        up, down = u[4 - k : -4 - k, 4:-4], u[4 + k : u.shape[0] - 4 + k, 4:-4]
        left, right = u[4:-4, 4 - k : -4 - k], u[4:-4, 4 + k : u.shape[1] - 4 + k]
        total = total + COEFFICIENTS[k] * (up + down + left + right)
    return total


def sponge(shape, strength=0.15):
    """Damping per step: zero in the model, growing quadratically through the frame."""
    z, x = np.mgrid[: shape[0], : shape[1]]
    to_edge = np.minimum(np.minimum(z, shape[0] - 1 - z), np.minimum(x, shape[1] - 1 - x))
    return (strength * (1 - to_edge / FRAME).clip(0) ** 2).astype(np.float32)


def padded_shape(shape):
    """Of the grid on which waves are computed."""
    return tuple(n + 2 * FRAME for n in shape)


def ricker(frequency, dt, n_steps):
    """Ricker wavelet of a peak frequency [Hz], one sample per time step."""
    argument = (np.pi * frequency * (np.arange(n_steps) * dt - 1.2 / frequency)) ** 2
    return ((1 - 2 * argument) * np.exp(-argument)).astype(np.float32)


def record(velocity, source, receivers, wavelet, dt, spacing, checkpointing=None):
    """Pressure at the receivers, shape (n_steps, n_receivers).

    velocity [m/s] is an array (z, x), source a pair (z, x) and receivers a pair of index arrays,
    in points of the model.
    """
    c2 = (np.pad(velocity, FRAME, mode="edge") * (dt / spacing)) ** 2
    s = sponge(c2.shape)
    iz, ix = source[0] + FRAME, source[1] + FRAME
    rz, rx = receivers[0] + FRAME, receivers[1] + FRAME

    def step(carry, w):
        u, u_prev = carry
        u_next = (2 - s) * u - (1 - s) * u_prev
        u_next[4:-4, 4:-4] += c2[4:-4, 4:-4] * laplacian(u)
        u_next[iz, ix] += w
        return (u_next, u), u_next[rz, rx]

    quiet = np.zeros(c2.shape, np.float32)
    _, traces = bs.scan(step, (quiet, quiet), wavelet, checkpointing=checkpointing)
    return traces
