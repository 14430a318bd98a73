"""Elementwise changes of variables: the table of `backsweep.inverse.transforms`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Bounds: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Transform:
    """In terms of the start value and the change."""

    apply: Callable[[Array, Any, Any], Any]
    """(p0, d, bounds) -> p, traced; d = 0 gives p0 exactly."""
    change: Callable[[Array, float], Array] | None
    """(p0, p) -> T(p) - T(p0); None where p cannot leave the bounds."""
    slope: Callable[[Array, Any], Any]
    """(p0, bounds) -> abs(dT/dp) at p0."""
    is_decreasing: bool = False
    needs_positive: bool = False


def _apply_logistic(p0: Array, d: Any, bounds: Bounds) -> Any:
    low, high = bounds
    r, s = (high - p0) / (high - low), (p0 - low) / (high - low)
    t = np.tanh(0.5 * d)  # unlike exp(d) it never overflows
    p = p0 + 2 * (high - low) * r * s * t / (s * (1 + t) + r * (1 - t))
    return np.clip(p, low, high)  # of rounding errors


TRANSFORMS: Final = {
    "none": Transform(lambda p0, d, _: p0 + d, lambda p0, p: p - p0, lambda p0, _: 1.0),
    "log": Transform(
        lambda p0, d, _: p0 * np.exp(d),
        lambda p0, p: np.log(max(p, 0.0) / p0),
        lambda p0, _: 1 / p0,
        needs_positive=True,
    ),
    "slowness": Transform(
        lambda p0, d, _: p0 / (1 + p0 * d),
        lambda p0, p: np.divide(1.0, max(p, 0.0)) - 1 / p0,
        lambda p0, _: 1 / p0**2,
        is_decreasing=True,
        needs_positive=True,
    ),
    "logistic": Transform(_apply_logistic, None, lambda p0, b: 1 / (p0 - b[0]) + 1 / (b[1] - p0)),
}
