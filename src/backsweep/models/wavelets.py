"""Source wavelets and their bandwidth."""

from __future__ import annotations

import numpy as np


def ricker(frequency: float, dt: float, n_steps: int, delay: float | None = None) -> np.ndarray:
    """Ricker wavelet (1 - 2 q) exp(-q) with q = (pi frequency (t - delay))^2.

    Parameters
    ----------
    frequency : float [Hz]
        Where the spectrum has its peak; it has fallen to 1 % at 2.8 times this frequency.
    dt : float [s]
    n_steps : int
    delay : float, optional [s]
        Time of the maximum; 1.5 / frequency by default, so that it starts from 1e-8 of it.

    Returns
    -------
    wavelet : ndarray, shape (n_steps,), float64
        Sample n at time n dt; the maximum is 1.

    References
    ----------
    Ricker (1953), The form and laws of propagation of seismic wavelets, Geophysics 18, 10-40,
    doi:10.1190/1.1437843.
    """
    delay = 1.5 / frequency if delay is None else delay
    q = (np.pi * frequency * (np.arange(n_steps) * dt - delay)) ** 2
    wavelet: np.ndarray = (1 - 2 * q) * np.exp(-q)
    return wavelet


def highest_frequency(wavelet: np.ndarray, dt: float, level: float = 0.01) -> float:
    """Frequency [Hz] above which a wavelet's spectrum stays below `level` of its peak.

    wavelet : ndarray, shape (n_steps,) or (n_steps, n_sources); the highest of all sources. 0 where
    the wavelet is zero.
    """
    # Padded fourfold: the spectrum of a short wavelet is read finely enough.
    n = 4 * len(wavelet)
    spectrum = np.abs(np.fft.rfft(wavelet.astype(np.float64), n, axis=0)).reshape(n // 2 + 1, -1)
    above = (spectrum >= level * spectrum.max(axis=0)) & (spectrum > 0)
    found = np.flatnonzero(above.any(axis=1))
    return float(found[-1] / (n * dt)) if len(found) else 0.0
