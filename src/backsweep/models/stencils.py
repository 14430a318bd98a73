"""Central differences of the second derivative, of order 2, 4, 6 and 8.

References
----------
Fornberg (1988), Generation of finite difference formulas on arbitrarily spaced grids, Mathematics
of Computation 51, 699-706, doi:10.1090/S0025-5718-1988-0935077-0, table 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.models.cpml import cut

SECOND_DERIVATIVE = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    6: (-49 / 18, 3 / 2, -3 / 20, 1 / 90),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}
"""Coefficients of the offsets 0, 1, ... of a symmetric formula, by order, for spacing 1."""

LEAST_POINTS = {2: 8.0, 4: 4.2, 6: 3.4, 8: 3.0}
"""Points per wavelength at which a formula makes waves 2.5 % too slow, by order."""


def bare(u: Any, axis: int, width: int) -> Any:
    """A field without the ghost points of the other axis: a view."""
    return u[:, width:-width] if axis == 0 else u[width:-width]


def second_derivative(u: Any, axis: int, order: int) -> Any:
    """Along an axis that has order / 2 ghost points at each end, for spacing 1."""
    width, weights = order // 2, SECOND_DERIVATIVE[order]
    n = u.shape[axis] - 2 * width
    total = weights[0] * cut(u, axis, width, n)
    for k in range(1, width + 1):
        total += weights[k] * (cut(u, axis, width + k, n) + cut(u, axis, width - k, n))
    return total


def largest_eigenvalue(order: int) -> float:
    """Of minus the second derivative, for spacing 1: the wave of two points per wavelength."""
    first, *others = SECOND_DERIVATIVE[order]
    return -first + 2 * sum(abs(c) for c in others)


def image_weights(order: int) -> np.ndarray:
    """What the antisymmetric image of points 1, 2, ... beyond point 0 adds to their derivative.

    Returns
    -------
    weights : ndarray, shape (order / 2 - 1, order / 2 - 1)
        Row: point that is read; column: point whose derivative it changes.
    """
    width, weights = order // 2, SECOND_DERIVATIVE[order]
    result = np.zeros((width - 1, width - 1))
    for written in range(1, width):
        for k in range(written + 1, width + 1):
            result[k - written - 1, written - 1] = -weights[k]
    return result
