"""Exact solutions and plain NumPy runs with which models are compared."""

import numpy as np
import scipy.special

from backsweep.models.acoustic_step import stepping, taps_of


def point_source(wavelet, dt, distance, velocity):
    """Pressure at a distance from a point source in two dimensions, at the wavelet's times.

    With exp(i omega t), as in NumPy's inverse transform, outgoing waves are H0 of the second kind.
    """
    n = 8 * len(wavelet)
    omega = 2 * np.pi * np.fft.rfftfreq(n, dt)
    green = np.zeros(len(omega), complex)
    green[1:] = -0.25j * scipy.special.hankel2(0, omega[1:] * distance / velocity)
    return np.fft.irfft(np.fft.rfft(wavelet, n) * green, n)[: len(wavelet)]


def relative_error(computed, exact):
    return np.linalg.norm(computed - exact) / np.linalg.norm(exact)


def run_plain(model, velocity, source, receivers, wavelet):
    """`Acoustic.simulate` with its step in plain NumPy: nothing is traced or compiled."""
    carry, advance = stepping(model, velocity, source)
    taps = taps_of(model, receivers, velocity.dtype)
    rows = []
    for sample in wavelet.astype(velocity.dtype).reshape(len(wavelet), -1):
        rows.append(taps.read(carry[0]))
        carry = advance(carry, sample)
    return np.array(rows)
