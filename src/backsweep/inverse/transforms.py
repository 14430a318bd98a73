"""From the vector that an optimiser moves to the physical parameters of a simulation.

Every parameter p with the start value p0 is, in traced NumPy,

    p = T^-1(T(p0) + S (scale * z))

with its part z of the vector of unknowns x, an elementwise change of variables T, and a
Gaussian smoothing S. Where a mask excludes a cell, p0 stays. The formulas are written in the
change d = S (scale * z) so that d = 0 gives p0 exactly; they are computed in double
precision and rounded to the dtype of p0.

| transform | T(p) | p |
|---|---|---|
| none | p | p0 + d |
| log | ln p | p0 exp(d) |
| slowness | 1 / p | p0 / (1 + p0 d) |
| logistic | ln((p - lo) / (hi - p)) | p0 + 2 (hi - lo) r s t / (s (1 + t) + r (1 - t)) |

where r = (hi - p0) / (hi - lo), s = 1 - r and t = tanh(d / 2).

Known to be suboptimal: S is a dense matrix for each axis, which costs n^2 numbers for an
axis of n points; `pullback` traces the map at each call (milliseconds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from backsweep import numpy as bnp
from backsweep.api.derivatives import vjp
from backsweep.errors import ModelError, ShapeError, did_you_mean
from backsweep.inverse.arrays import fits_into
from backsweep.inverse.elementwise import TRANSFORMS, Bounds
from backsweep.inverse.smoothing import gaussian_matrix, smooth

Array: TypeAlias = NDArray[Any]


_LOGISTIC_MARGIN: Final = 1e-4
"""Of the distance of the bounds: how far inside of them a stage starts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Unknown:
    """How one parameter array is sought.

    Parameters
    ----------
    transform : {"none", "log", "slowness", "logistic"}
        The change of variables T of `backsweep.inverse.transforms`. "logistic" keeps the
        parameter between its bounds whatever the unknowns are. "slowness" without bounds can
        reach 1/p = 0.
    bounds : (low, high), optional [unit of the parameter]
        Infinite ones are allowed but for "logistic". Held by the optimiser, up to rounding,
        but for "logistic".
    mask : ndarray of bool, shape of the parameter, optional
        True where it is sought; by default everywhere.
    smoothing : float or tuple of float, one per axis [grid points]
        Standard deviation of the Gaussian S. Cells that are not sought count as unchanged, so
        that changes fade towards them.
    scale : float or ndarray, broadcastable to the parameter [unit of T(p)]
        Change of T(p) by one unit of an unknown: a preconditioner, such as depth weights or
        an illumination. Default: the root mean square of T(p0) for "none" and "slowness", 1 for
        the others, whose unknowns are relative already.

    Raises
    ------
    ModelError
        If a setting is not one of these, or two exclude each other: bounds need a mapping
        cell by cell, which smoothing is not ("logistic" bounds hold after smoothing).
    """

    transform: str = "none"
    bounds: Bounds | None = None
    mask: Array | None = field(default=None, repr=False)
    smoothing: float | tuple[float, ...] = 0.0
    scale: float | Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise ModelError(
                f"transform {self.transform!r}: {did_you_mean(self.transform, TRANSFORMS)}"
            )
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ModelError(f"bounds {self.bounds}: the first must be below the second")
        if self.transform == "logistic" and (
            self.bounds is None or not np.all(np.isfinite(self.bounds))
        ):
            raise ModelError(f'transform "logistic" needs two finite bounds, not {self.bounds}')
        if not np.all(np.isfinite(self.smoothing)) or np.min(self.smoothing, initial=0) < 0:
            raise ModelError(f"smoothing {self.smoothing}: it must be zero or positive")
        if self.bounds is not None and np.any(self.smoothing) and self.transform != "logistic":
            raise ModelError(
                f"bounds {self.bounds} cannot be held together with smoothing {self.smoothing}: "
                'use transform="logistic"'
            )
        if self.scale is not None and not (
            np.all(np.isfinite(self.scale)) and np.all(np.greater(self.scale, 0))
        ):
            raise ModelError("scale must be positive and finite everywhere")

    def scale_of(self, start: Array, size: float | Array) -> Any:
        """The scale for changes of this size [unit of the parameter]."""
        with np.errstate(all="ignore"):  # values that are sought are checked by `Unknowns`
            slope = np.asarray(TRANSFORMS[self.transform].slope(start, self.bounds))
        return size * np.where(np.isfinite(slope) & (slope > 0), slope, 1.0)

    def scale_at(self, start: Array) -> float | Array:
        """The scale that was given, or the default for a start value."""
        if self.scale is not None:
            return self.scale
        size = float(np.sqrt(np.mean(np.abs(start.astype(np.result_type(start, 1.0))) ** 2))) or 1.0
        return {"none": size, "slowness": 1 / size}.get(self.transform, 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """One parameter and its part of the vector of unknowns."""

    start: Array
    setting: Unknown
    first: int
    positions: Array | None
    """Of the cells that are sought, in the flat array; None: all."""
    scale: Array
    """Of each cell that is sought; shape (n_cells,), float64."""
    smoothers: tuple[tuple[int, Array], ...]
    """Axis and matrix of each smoothing."""

    @property
    def n(self) -> int:
        return len(self.scale) * (2 if self.start.dtype.kind == "c" else 1)

    @property
    def values(self) -> Array:
        """Start values of the cells that are sought, in double precision."""
        values = self.start.reshape(-1)
        values = values if self.positions is None else values[self.positions]
        return values.astype(np.result_type(values, np.float64))

    def parameter(self, x: Any) -> Any:
        z = x[self.first : self.first + self.n]
        if self.start.dtype.kind == "c":
            z = z[: len(self.scale)] + 1j * z[len(self.scale) :]
        change = self._smoothed(self.scale * z)
        apply = TRANSFORMS[self.setting.transform].apply
        sought = apply(self.values, change, self.setting.bounds).astype(self.start.dtype)
        if self.positions is None:
            return sought.reshape(self.start.shape)
        result = bnp.array(self.start.reshape(-1))
        result[self.positions] = sought
        return result.reshape(self.start.shape)

    def _smoothed(self, change: Any) -> Any:
        if not self.smoothers:
            return change
        field = change
        if self.positions is not None:
            field = np.zeros(self.start.size, change.dtype, like=change)
            field[self.positions] = change
        field = smooth(field.reshape(self.start.shape), self.smoothers).reshape(-1)
        return field if self.positions is None else field[self.positions]

    def inside(self, parameter: Array) -> Array:
        if self.setting.bounds is None:
            return parameter
        low, high = self.setting.bounds
        margin = _LOGISTIC_MARGIN * (high - low) if self.setting.transform == "logistic" else 0.0
        result = np.array(parameter, order="C")
        cells = slice(None) if self.positions is None else self.positions
        flat = result.reshape(-1)
        flat[cells] = np.clip(flat[cells], low + margin, high - margin)
        return result

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Bounds of its unknowns; zero, the start, is always between them."""
        transform = TRANSFORMS[self.setting.transform]
        if self.setting.bounds is None or transform.change is None:
            return [(None, None)] * self.n
        with np.errstate(divide="ignore"):
            low, high = (transform.change(self.values, p) for p in self.setting.bounds)
        if transform.is_decreasing:
            low, high = high, low
        low, high = np.minimum(low, 0) / self.scale, np.maximum(high, 0) / self.scale
        return [
            (a if np.isfinite(a) else None, b if np.isfinite(b) else None)
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]


@final
class Unknowns:
    """All unknowns of a problem, and the map from them to its parameters.

    Parameters
    ----------
    start : mapping of str to array_like, float or complex
        The start values; they are copied.
    settings : mapping of str to Unknown, optional
        For names of `start`; others are sought with the defaults.

    Attributes
    ----------
    n : int
        Number of unknowns. A complex cell has two, its real and its imaginary part: all real
        parts of a parameter stand before all imaginary ones.
    x0 : ndarray, shape (n,), float64
        Zeros: the start.
    bounds : list of (float or None, float or None), or None
        Of each unknown, as `scipy.optimize.minimize` takes them; None if nothing is bounded.

    Raises
    ------
    ModelError
        If a setting is for an unknown name or does not fit its start value: a start outside
        of its bounds or on a "logistic" one, not positive for "log" or "slowness", not finite,
        integer, complex with a transform or bounds; a mask of another shape or without cells.

    Examples
    --------
    >>> unknowns = Unknowns({"c": np.array([1500.0, 2000.0])}, {"c": Unknown(transform="log")})
    >>> unknowns.parameters(np.array([0.0, np.log(1.5)]))["c"]
    array([1500., 3000.])
    """

    def __init__(
        self, start: Mapping[str, Any], settings: Mapping[str, Unknown] | None = None
    ) -> None:
        settings = {} if settings is None else settings
        for name in settings:
            if name not in start:
                raise ModelError(
                    f"settings for {name!r}, no parameter: {did_you_mean(name, start)}"
                )
        self._parts: dict[str, _Part] = {}
        self.n = 0
        for name, value in start.items():
            part = _make_part(name, np.array(value), settings.get(name, Unknown()), self.n)
            self._parts[name] = part
            self.n += part.n

    @property
    def x0(self) -> Array:
        return np.zeros(self.n)

    @property
    def bounds(self) -> list[tuple[float | None, float | None]] | None:
        pairs = [pair for part in self._parts.values() for pair in part.bounds()]
        return None if all(pair == (None, None) for pair in pairs) else pairs

    def parameters(self, x: Any) -> dict[str, Any]:
        """The parameters that a vector of unknowns stands for; can be traced.

        Parameters
        ----------
        x : ndarray, shape (n,), float64

        Returns
        -------
        dict of str to ndarray
            Of the shapes and dtypes of the start values, which they equal at x = 0.

        Raises
        ------
        ShapeError
            If x has another shape.
        """
        if np.shape(x) != (self.n,):
            raise ShapeError(f"unknowns of shape {np.shape(x)}, ({self.n},) is needed")
        return {name: part.parameter(x) for name, part in self._parts.items()}

    def inside(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters that were found, as a start for other unknowns with the same settings.

        Parameters
        ----------
        parameters : dict of ndarray
            As from `parameters`: within their bounds up to rounding.

        Returns
        -------
        dict of ndarray
            Within them; with "logistic" by 1e-4 of their distance, since a start on a bound
            could never leave it.
        """
        return {name: part.inside(parameters[name]) for name, part in self._parts.items()}

    def pullback(self, x: Any, bars: Mapping[str, Any]) -> Array:
        """The gradient with respect to the unknowns from that with respect to parameters.

        Parameters
        ----------
        x : array_like, shape (n,)
            Where the gradient was taken.
        bars : mapping of str to array_like
            Gradients of a real loss with respect to all parameters, of their shapes.

        Returns
        -------
        ndarray, shape (n,), float64

        Raises
        ------
        ShapeError
            If x or a gradient has another shape, or one is missing.
        """
        if set(bars) != set(self._parts):
            raise ShapeError(f"gradients of {sorted(bars)}, those of {sorted(self._parts)} needed")
        _, pull = vjp(self.parameters, np.asarray(x, np.float64))
        return np.asarray(pull({name: bars[name] for name in self._parts})[0])


def _make_part(name: str, start: Array, setting: Unknown, first: int) -> _Part:
    if start.dtype.kind not in "fc":
        raise ModelError(
            f"{name}: the start has dtype {start.dtype}, convert it with astype(float)"
        )
    if not np.all(np.isfinite(start)):
        raise ModelError(f"{name}: the start is not finite everywhere")
    positions = _positions(name, start, setting.mask)
    values = start.reshape(-1) if positions is None else start.reshape(-1)[positions]
    _check_values(name, values, setting)
    given = setting.scale_at(start)
    if not fits_into(np.shape(given), start.shape):
        raise ModelError(
            f"{name}: scale of shape {np.shape(given)} does not fit the parameter's {start.shape}"
        )
    scale = np.broadcast_to(np.asarray(given, np.float64), start.shape).reshape(-1)
    scale = scale.copy() if positions is None else scale[positions]
    return _Part(start, setting, first, positions, scale, _smoothers(name, start.shape, setting))


def _positions(name: str, start: Array, mask: Array | None) -> Array | None:
    if mask is None:
        mask = np.ones(start.shape, bool)
    if np.shape(mask) != start.shape or np.asarray(mask).dtype != bool:
        raise ModelError(
            f"{name}: a mask of {np.asarray(mask).dtype} of shape {np.shape(mask)}, bool of shape "
            f"{start.shape} is needed"
        )
    positions = np.flatnonzero(mask)
    if not len(positions):
        raise ModelError(f"{name}: no cell is sought")
    return None if len(positions) == start.size else positions


def _check_values(name: str, values: Array, setting: Unknown) -> None:
    """Refuse start values that a setting cannot represent, where they are sought."""
    if values.dtype.kind == "c":
        if setting.transform != "none" or setting.bounds is not None:
            raise ModelError(f"{name}: a complex parameter can have neither transform nor bounds")
        return
    low, high = values.min(), values.max()
    if TRANSFORMS[setting.transform].needs_positive and low <= 0:
        raise ModelError(
            f"{name}: transform {setting.transform!r} needs a positive start, its least value is "
            f"{low:g}"
        )
    if setting.bounds is None:
        return
    # As the start is rounded: 0.35 in single precision is less than 0.35.
    below, above = np.asarray(setting.bounds, values.dtype)
    is_strict = setting.transform == "logistic"
    if low < below or high > above or (is_strict and (low == below or high == above)):
        raise ModelError(
            f"{name}: the start, from {low:.9g} to {high:.9g}, is not "
            f"{'strictly ' if is_strict else ''}between its bounds {below:.9g} and {above:.9g}"
        )


def _smoothers(
    name: str, shape: tuple[int, ...], setting: Unknown
) -> tuple[tuple[int, Array], ...]:
    if np.ndim(setting.smoothing) and np.shape(setting.smoothing) != (len(shape),):
        raise ModelError(
            f"{name}: smoothing {setting.smoothing} is for other than its {len(shape)} axes"
        )
    deviations = np.broadcast_to(np.asarray(setting.smoothing, np.float64), (len(shape),))
    pairs = enumerate(zip(shape, deviations.tolist(), strict=True))
    return tuple((axis, gaussian_matrix(n, sigma)) for axis, (n, sigma) in pairs if sigma > 0)
