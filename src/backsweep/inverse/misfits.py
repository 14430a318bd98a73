"""Misfits: one real number for the difference of predicted and observed data.

Each is a frozen dataclass of its settings, called with two arrays and optional weights inside
or outside a traced function, and stands in `MISFITS` under its name, by which run files ask
for it. Axis 0 of data is time, what follows are the traces (`NormalizedCorrelation` alone
needs to know).

Known to be suboptimal: misfits are evaluated by NumPy after the simulation, so that a few
arrays of the size of the data are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from backsweep.errors import ModelError, ShapeError
from backsweep.inverse.arrays import fits_into, product, squared_modulus


class Misfit(Protocol):
    """What every misfit offers; a user's own function with a `name` is one too."""

    @property
    def name(self) -> str: ...

    def __call__(self, predicted: Any, observed: Any, weights: Any = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class L2:
    """Least squares: 0.5 sum |w (p - o)|^2.

    Notes
    -----
    ``L2()(predicted, observed, weights=None)``, for this and the other misfits:

    predicted, observed : ndarray, one shape, float or complex [any unit, the same]
    weights : ndarray, broadcastable to the data, float, optional
        Multiply the residuals, so that 1 / (standard deviation of the noise) makes this the
        negative logarithm of a Gaussian likelihood; 0 leaves data out.

    The result is a real scalar in the precision that NumPy gives to ``w * (p - o)``. What does
    not fit raises `ShapeError`.

    Examples
    --------
    >>> float(L2()(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """

    name: ClassVar[str] = "l2"

    def __call__(self, predicted: Any, observed: Any, weights: Any = None) -> Any:
        return 0.5 * np.sum(squared_modulus(_residuals(predicted, observed, weights)))


@dataclass(frozen=True, slots=True)
class Huber:
    """Least squares for small residuals, absolute values for outliers.

    Parameters
    ----------
    threshold : float [rms of the observed data]
        Where one becomes the other, relative to the root mean square of ``w o`` over all data
        of the call; it must be positive.

    Raises
    ------
    ModelError
        If the threshold is not positive and finite.

    Notes
    -----
    With the residual r = w (p - o) and t the threshold times the rms of w o,

        sum of  0.5 |r|^2  where |r| <= t,  t (|r| - 0.5 t)  elsewhere,

    continuous with its first derivative. If all observed data are zero there is no scale, and
    the misfit is that of `L2`. Data, weights and result are as in `L2`.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Annals of Mathematical Statistics
    35(1), 73-101, doi:10.1214/aoms/1177703732.
    Guitton & Symes (2003), Robust inversion of seismic data using the Huber norm, Geophysics
    68(4), 1310-1319, doi:10.1190/1.1598124.
    """

    threshold: float
    name: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        if not 0 < self.threshold < np.inf:
            raise ModelError(
                f"Huber(threshold={self.threshold}): it must be positive and finite; 1 is the "
                "root mean square of the observed data"
            )

    def __call__(self, predicted: Any, observed: Any, weights: Any = None) -> Any:
        size = np.abs(_residuals(predicted, observed, weights))
        # In double precision: squares of small amplitudes vanish in single.
        squares = _double(np.abs(_weighted(observed, weights))) ** 2
        rms = np.sqrt(np.sum(squares) / max(1, math.prod(np.shape(observed))))
        limit = np.where(rms > 0, self.threshold * rms, np.inf).astype(size.dtype)
        quadratic = np.minimum(size, limit)
        return np.sum(quadratic * (size - 0.5 * quadratic))


@dataclass(frozen=True, slots=True)
class NormalizedCorrelation:
    """One minus the correlation of predicted and observed traces, summed over traces.

    Notes
    -----
    With sums over axis 0 (time), for each trace

        1 - sum(p o) / sqrt(sum(p p) sum(o o)),

    from 0 (equal up to a positive factor) to 2. Amplitudes of traces do not matter. A trace
    without observed data counts 0, one without predicted data 1, both with the gradient 0:
    the derivative does not exist there. Weights multiply both p and o. Of complex data the
    real part of the correlation is taken. Sums are in double precision, whatever the data's,
    since one is subtracted from another close to it. Data of no dimension raise `ShapeError`.

    References
    ----------
    Choi & Alkhalifah (2012), Application of multi-source waveform inversion to marine streamer
    data using the global correlation norm, Geophysical Prospecting 60(4), 748-758,
    doi:10.1111/j.1365-2478.2012.01079.x (theirs is this without the one).
    """

    name: ClassVar[str] = "normalized_correlation"

    def __call__(self, predicted: Any, observed: Any, weights: Any = None) -> Any:
        shape = _check_shapes(predicted, observed, weights)
        if not shape:
            raise ShapeError("NormalizedCorrelation: the data are one number; axis 0 must be time")
        p = _double(_weighted(predicted, weights))
        o = _double(_weighted(observed, weights))
        if p.dtype != o.dtype:
            p, o = p.astype(np.complex128), o.astype(np.complex128)
        pp, oo = np.sum(squared_modulus(p), axis=0), np.sum(squared_modulus(o), axis=0)
        is_live = (pp > 0) & (oo > 0)
        # The inner `where` keeps the derivative of the branch not taken finite.
        norms = np.sqrt(np.where(is_live, pp, 1)) * np.sqrt(np.where(is_live, oo, 1))
        correlations = np.where(is_live, np.sum(product(p, o), axis=0) / norms, 0)
        return np.sum(np.where(oo > 0, 1 - correlations, 0))


MISFITS: Final[dict[str, Callable[..., Misfit]]] = {
    L2.name: L2,
    Huber.name: Huber,
    NormalizedCorrelation.name: NormalizedCorrelation,
}
"""By name; the values take the settings."""


def _residuals(predicted: Any, observed: Any, weights: Any) -> Any:
    _check_shapes(predicted, observed, weights)
    return _weighted(np.subtract(predicted, observed), weights)


def _weighted(data: Any, weights: Any) -> Any:
    return data if weights is None else np.multiply(weights, data)


def _double(a: Any) -> Any:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _check_shapes(predicted: Any, observed: Any, weights: Any) -> tuple[int, ...]:
    """The data's shape; broadcasting one of them would count others more than once."""
    shape: tuple[int, ...] = np.shape(predicted)
    if np.shape(observed) != shape:
        raise ShapeError(
            f"predicted data have the shape {shape}, observed data {np.shape(observed)}: "
            "they must be the same"
        )
    if weights is not None and not fits_into(np.shape(weights), shape):
        raise ShapeError(f"weights of shape {np.shape(weights)} do not fit data of shape {shape}")
    return shape
