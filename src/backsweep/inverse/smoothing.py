"""Gaussian smoothing by matrices: it can be traced, and it is its own adjoint exactly.

Known to be suboptimal: a matrix has n^2 numbers for an axis of n points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def gaussian_matrix(n: int, deviation: float) -> Array:
    """Matrix that smooths n points by a Gaussian, reflecting the values at the edges.

    Parameters
    ----------
    n : int
    deviation : float [grid points]

    Returns
    -------
    ndarray, shape (n, n), float64
        Exactly symmetric; rows and columns sum to one, so that constants stay.

    Notes
    -----
    With ``d c b a | a b c d | d c b a`` the element (i, j) is a sum of the kernel at i - j +
    2 m n and at i + j + 1 + 2 m n over integers m: unchanged if i and j are exchanged.
    """
    matrix = scipy.ndimage.gaussian_filter1d(
        np.eye(n), deviation, axis=0, mode="reflect", truncate=6.0
    )
    return np.asarray(0.5 * (matrix + matrix.T))


def smooth(a: Any, matrices: Sequence[tuple[int, Array]]) -> Any:
    """Multiply an array along axes; `matrices` are pairs of an axis and a matrix."""
    for axis, matrix in matrices:
        a = np.moveaxis(np.tensordot(matrix, a, axes=(1, axis)), 0, axis)
    return a
