"""Checks that models share: each raises one sentence with value, limit and remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.errors import ModelError


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape than the model's."""
    found = tuple(np.shape(value))
    if found != tuple(shape):
        raise ModelError(
            f"{name} has shape {found}, the model {tuple(shape)}: give one value per point"
        )


def check_finite(name: str, value: np.ndarray) -> None:
    """Refuse infinities and NaN."""
    if not np.isfinite(value).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0])
        raise ModelError(f"{name} is {value[where]} at point {where}: it must be finite everywhere")


def check_positive(name: str, value: np.ndarray, unit: str) -> None:
    """Refuse values that are not finite and positive."""
    is_good = np.isfinite(value) & (value > 0)
    if not is_good.all():
        where = tuple(int(k) for k in np.argwhere(~is_good)[0])
        raise ModelError(
            f"{name} is {value[where]:.6g} {unit} at point {where}: it must be finite and positive "
            "everywhere"
        )


def check_dt(dt: float, limit: float, reason: str) -> None:
    """Refuse a time step that is not positive or beyond the limit that `reason` sets."""
    if not 0 < dt <= limit:
        raise ModelError(
            f"dt is {dt:.6g} s and the largest stable time step {limit:.6g} s, set by {reason}: "
            "take a smaller dt, between 0 and that limit"
        )
