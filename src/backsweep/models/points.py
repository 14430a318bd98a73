"""Sources and receivers anywhere between grid points: sinc functions in a Kaiser window.

A point source between grid points is spread over the 8 nearest points of each axis, and a receiver
reads them, with the weights sinc(x) I0(b sqrt(1 - (x / r)^2)) / I0(b), where x is the distance in
grid points, r = 4 and b = 6.31: the band-limited delta function of Hicks (2002), made for 4
points per wavelength and more. A position on a grid point needs that point alone.

References
----------
Hicks (2002), Arbitrary source and receiver positioning in finite-difference schemes using Kaiser
windowed sinc functions, Geophysics 67, 156-165, doi:10.1190/1.1451454.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RADIUS = 4
SHAPE = 6.31
"""b of the window for radius 4, for wavelengths of 4 points and more."""
ON_GRID = 1e-6
"""Positions so close to a grid point, in grid points, count as on it."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Cells and weights of points: what a source writes to and a receiver reads.

    Attributes
    ----------
    i, j : ndarray, shape (n_points, n_taps), int64
        Indices of cells along both axes.
    weights : ndarray, shape (n_points, n_taps)
    """

    i: np.ndarray
    j: np.ndarray
    weights: np.ndarray

    def read(self, u: Any) -> Any:
        """The field at the points, shape (n_points,)."""
        if self.weights.shape[1] == 1:
            return u[self.i[:, 0], self.j[:, 0]] * self.weights[:, 0]
        return np.sum(u[self.i, self.j] * self.weights, axis=1)


def _along(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells and weights along one axis, shape (n_points, 8), for positions in grid points."""
    nearest = np.rint(positions)
    positions = np.where(np.abs(positions - nearest) < ON_GRID, nearest, positions)
    cells = np.floor(positions)[:, None] + np.arange(1 - RADIUS, RADIUS + 1)
    x = cells - positions[:, None]
    window = np.i0(SHAPE * np.sqrt(np.clip(1 - (x / RADIUS) ** 2, 0, None))) / np.i0(SHAPE)
    # sinc of an integer is 1e-17, not 0, and would cost a tap.
    weights = np.where(x == np.rint(x), x == 0, np.sinc(x) * window)
    return cells.astype(np.int64), weights


def find_taps(
    positions: Any, spacing: float, origin: tuple[int, int], mirror: bool, dtype: Any
) -> Taps:
    """Cells and weights of points.

    Parameters
    ----------
    positions : array_like, shape (n_points, 2) [m]
        x and z, from the model's first point.
    spacing : float [m]
    origin : tuple of int
        Indices of the model's first point in the field.
    mirror : bool
        z = 0 is a free surface: what lies above it counts, with the opposite sign, at its image.
    dtype : dtype
        Of the weights.

    Returns
    -------
    Taps
        Without the columns that are zero for all points: one tap where every point is on the grid.
    """
    x, z = (np.asarray(positions, np.float64).reshape(-1, 2) / spacing).T
    (i, wx), (j, wz) = _along(x), _along(z)
    if mirror:
        wz, j = np.where(j < 0, -wz, wz), np.abs(j)
    i, wx = _trimmed(i, wx)
    j, wz = _trimmed(j, wz)
    shape = (len(x), i.shape[1], j.shape[1])
    flat = (len(x), i.shape[1] * j.shape[1])
    return Taps(
        np.broadcast_to(i[:, :, None] + origin[0], shape).reshape(flat),
        np.broadcast_to(j[:, None, :] + origin[1], shape).reshape(flat),
        (wx[:, :, None] * wz[:, None, :]).reshape(flat).astype(dtype),
    )


def _trimmed(cells: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = np.any(weights != 0, axis=0)
    return cells[:, used], weights[:, used]
