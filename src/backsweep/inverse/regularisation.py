"""Penalties on a parameter, added to the misfit: distance, roughness, total variation.

Each is a frozen dataclass, called with a parameter and its start value (of any number of
dimensions, real or complex) inside or outside of a traced function, and returns a real
scalar without unit: values are divided by the mean modulus of the start (by one if it is
zero), and sums over cells are means.

A difference is that of neighbours divided by the `spacing`, so that a weight means the same
on a finer grid if the spacing is given in one fixed length (a wavelength, say); with the
default, one, differences are per grid point. At the far edge of an axis they are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from backsweep.errors import ModelError, ShapeError
from backsweep.inverse.arrays import squared_modulus

Spacing = float | tuple[float, ...]


class Regularisation(Protocol):
    """What every penalty offers."""

    @property
    def name(self) -> str: ...

    def __call__(self, parameter: Any, start: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Tikhonov:
    """Squares of the change from the start, or of its first differences.

    Parameters
    ----------
    weight : float
        Zero or positive.
    order : {0, 1}
        0: the change itself, the distance to the start. 1: its first differences.
    spacing : float or tuple of float, one per axis
        Of the grid, in any one length.

    Raises
    ------
    ModelError
        If a setting is out of its range.

    Notes
    -----
    With q = (p - p0) / mean |p0|, order 0 is weight / 2 * mean(|q|^2), order 1 is weight / 2 *
    mean(|grad q|^2). The *change* is smoothed, not the model: what is rough in the start costs
    nothing, and value and gradient are zero there.

    References
    ----------
    Tikhonov & Arsenin (1977), Solutions of ill-posed problems, Winston, Washington.
    """

    weight: float
    order: int = 1
    spacing: Spacing = 1.0
    name: ClassVar[str] = "tikhonov"

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        _check_spacing(self.spacing)
        if self.order not in (0, 1):
            raise ModelError(f"Tikhonov: order={self.order}, 0 and 1 are supported")

    def __call__(self, parameter: Any, start: Any) -> Any:
        change = np.subtract(parameter, start) / _scale(parameter, start)
        squares = (
            squared_modulus(change) if self.order == 0 else _squared_gradient(change, self.spacing)
        )
        return 0.5 * self.weight * np.mean(squares)


@dataclass(frozen=True, slots=True)
class TotalVariation:
    """The mean length of the gradient of the model, isotropic and smoothed at zero.

    Parameters
    ----------
    weight : float
        Zero or positive.
    epsilon : float [mean modulus of the start / spacing]
        At least 1e-15. Gradients well below it are penalised by their squares, as in `Tikhonov`;
        those well above by their lengths, so that sharp edges cost no more than ramps.
    spacing : float or tuple of float, one per axis
        Of the grid, in any one length.

    Raises
    ------
    ModelError
        If a setting is out of its range.

    Notes
    -----
    With q = p / mean |p0|: weight * mean(sqrt(|grad q|^2 + epsilon^2) - epsilon), zero for a
    flat model, with forward differences. It is the *model* that counts, whatever the start.

    References
    ----------
    Rudin, Osher & Fatemi (1992), Nonlinear total variation based noise removal algorithms,
    Physica D 60, 259-268, doi:10.1016/0167-2789(92)90242-F (without epsilon).
    """

    weight: float
    epsilon: float = 1e-3
    spacing: Spacing = 1.0
    name: ClassVar[str] = "total_variation"

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        _check_spacing(self.spacing)
        # Its square is not zero in single precision.
        if not 1e-15 <= self.epsilon < np.inf:
            raise ModelError(f"TotalVariation: epsilon={self.epsilon}, at least 1e-15 is needed")

    def __call__(self, parameter: Any, start: Any) -> Any:
        squares = _squared_gradient(parameter / _scale(parameter, start), self.spacing)
        # sqrt(s + e^2) - e without the loss of digits for s << e^2.
        lengths = squares / (np.sqrt(squares + self.epsilon**2) + self.epsilon)
        return self.weight * np.mean(lengths)


def _scale(parameter: Any, start: Any) -> Any:
    """Mean modulus of the start, or one."""
    if np.shape(parameter) != np.shape(start):
        raise ShapeError(
            f"the parameter has the shape {np.shape(parameter)}, its start {np.shape(start)}: "
            "they must be the same"
        )
    mean = np.mean(np.abs(start))
    return np.where(mean > 0, mean, 1)


def _squared_gradient(q: Any, spacing: Spacing) -> Any:
    """|grad q|^2 at each cell, by forward differences."""
    n_axes = np.ndim(q)
    if np.ndim(spacing) and len(spacing) != n_axes:  # type: ignore[arg-type]
        raise ShapeError(f"spacing {spacing} is for other than the parameter's {n_axes} axes")
    squares = np.zeros_like(squared_modulus(q))
    for axis, h in enumerate(np.broadcast_to(spacing, (n_axes,)).tolist()):
        inner = (slice(None),) * axis + (slice(None, -1),)
        squares[inner] += squared_modulus(np.diff(q, axis=axis) / h)
    return squares


def _check_weight(weight: float) -> None:
    if not 0 <= weight < np.inf:
        raise ModelError(f"weight={weight} of a regularisation: it must be zero or positive")


def _check_spacing(spacing: Spacing) -> None:
    if not np.all(np.isfinite(spacing)) or not np.all(np.greater(spacing, 0)):
        raise ModelError(f"spacing={spacing} of a regularisation: it must be positive")
