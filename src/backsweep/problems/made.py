"""A subsurface that the code makes: sea, folded layers, a fault, a salt body."""

from __future__ import annotations

import numpy as np
import scipy

SEA_FLOOR = 0.15
"""Depth of the sea, as part of the model's depth."""


def basin(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """True and start velocity of a made model.

    Parameters
    ----------
    shape : (nx, nz)

    Returns
    -------
    true, start : ndarray, shape (nx, nz), float32 [m/s]
        The start is the true model, its slowness smoothed below the sea floor.
    """
    nx, nz = shape
    x, z = np.mgrid[:nx, :nz] * np.array([220 / nx, 80 / nz])[:, None, None]
    floor = SEA_FLOOR * 80
    throw = np.where(x > 150 - 0.5 * z, 6.0, 0.0)  # the fault, dipping to the left
    depth = z - floor + throw + 4 * np.sin(x / 23) * np.clip((z - floor) / 30, 0, 1)
    layer = np.floor(depth.clip(0) / 7)
    true = 1700 + 22 * depth.clip(0) + np.where(layer % 2 == 0, 150, -150)
    true[((x - 85) / 32) ** 2 + ((z - 48 - 3 * np.sin(x / 9)) / 11) ** 2 < 1] = 3900  # salt
    true[z < floor] = 1500
    n_sea = int(np.sum(z[0] < floor))
    sigma = 9 * np.array([nx / 220, nz / 80])
    slowness = scipy.ndimage.gaussian_filter(1 / true[:, n_sea:], sigma, mode="nearest")
    start = np.concatenate([true[:, :n_sea], 1 / slowness], axis=1)
    return true.astype(np.float32), start.astype(np.float32)
