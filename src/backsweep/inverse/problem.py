"""What an inverse problem must offer, and what it may.

A `Problem` needs three members; a class of 20 lines will do (examples/own_problem.py). Whatever
else it has of the members of `OptionalMembers` is used where it helps.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np

from backsweep.errors import ModelError
from backsweep.storage.results import Variable

Parameters = dict[str, Any]
"""Named arrays: what is sought."""


class Problem(Protocol):
    """The misfit of a simulation, as a sum over independent items such as shots.

    Attributes
    ----------
    items : sequence
        What the misfit is a sum over; any objects. Ranks share them out.
    """

    @property
    def items(self) -> Sequence[Any]: ...

    def start(self) -> Mapping[str, np.ndarray]:
        """Start values, floating point, by name."""

    def misfit(self, parameters: Parameters, item: Any) -> Any:
        """Real scalar, in NumPy that can be traced."""


class OptionalMembers(Protocol):
    """Members that a problem may have besides those of `Problem`; none is needed.

    Attributes
    ----------
    dims : mapping of str to tuple of str
        Names of the dimensions of each parameter, for results and pictures.
    units : mapping of str to str
    coords : mapping of str to (ndarray, str)
        Values and unit along a dimension.
    masks : mapping of str to ndarray of bool
        Where a parameter is sought; elsewhere its start value stays.
    scales : mapping of str to ndarray or float
        Typical size of a change [unit of the parameter], whatever the transform: the unit of the
        unknowns.
    grid : tuple of int
        Shape of the grid that several ranks share where they work on one item; by default that of
        the largest parameter.
    """

    dims: Mapping[str, tuple[str, ...]]
    units: Mapping[str, str]
    coords: Mapping[str, tuple[np.ndarray, str]]
    masks: Mapping[str, np.ndarray]
    scales: Mapping[str, Any]
    grid: tuple[int, ...]

    def true(self) -> Mapping[str, np.ndarray]:
        """The parameters behind made data, with which a result is compared."""

    def check(self, parameters: Parameters) -> None:
        """Raise a `ModelError` if the simulation cannot run with these."""

    def prepare(self, items: Sequence[Any]) -> None:
        """Read or make the data of the items of this rank, before `misfit` is traced."""

    def simulate(self, parameters: Parameters, item: Any) -> Any:
        """The data of an item (`forward`, Gauss-Newton)."""

    def compare(self, data: Any, item: Any) -> Any:
        """The misfit of data; convex for Gauss-Newton."""

    def illumination(self, parameters: Parameters, item: Any) -> Mapping[str, np.ndarray]:
        """How strongly an item sees each value of a parameter; not negative."""

    def identity(self) -> Mapping[str, str]:
        """What tells it from others, such as checksums of its data: an inversion of another
        identity is not resumed.
        """

    def at_stage(self, **settings: Any) -> Problem:
        """The problem with other settings, such as a frequency band."""

    def fields(self, parameters: Parameters) -> Mapping[str, tuple[Any, tuple[str, ...], str]]:
        """Values, dimensions and unit of what else the result should hold."""

    def targets(self) -> Mapping[str, tuple[Any, tuple[str, ...], str]]:
        """What fields of the same names should become."""


@final
class Described:
    """A problem with its start values, and what its optional members say.

    Raises
    ------
    ModelError
        If a member is missing, or something does not fit.
    """

    def __init__(self, problem: Any) -> None:
        kind = type(problem).__name__
        for name in ("items", "start", "misfit"):
            if not hasattr(problem, name):
                raise ModelError(
                    f"the problem {kind} has no {name}; it needs items, start() and "
                    "misfit(parameters, item)"
                )
        items = problem.items
        if isinstance(items, Mapping) or not hasattr(items, "__getitem__"):
            raise ModelError(
                f"items of the problem {kind} are of type {type(items).__name__}; they must have "
                "numbers and a length, as in list(...)"
            )
        if len(items) == 0:
            raise ModelError(f"the problem {kind} has no items")
        self.problem = problem
        self.start = _arrays(kind, "start", problem.start())
        if not self.start:
            raise ModelError(f"start() of the problem {kind} names no parameter")
        for name, value in self.start.items():
            _check_start(name, value)
        for name, value in self.true().items():
            if name not in self.start or value.shape != self.start[name].shape:
                raise ModelError(f"true() names {name!r} of shape {value.shape}, start() does not")
        self.check(self.start)

    def check(self, parameters: Parameters) -> None:
        if hasattr(self.problem, "check"):
            self.problem.check(parameters)

    def member(self, kind: str, name: str, default: Any = None) -> Any:
        """An entry of one of the optional mappings."""
        return (getattr(self.problem, kind, None) or {}).get(name, default)

    def grid(self) -> tuple[int, ...]:
        """The shape of the grid that can be cut into blocks.

        Raises
        ------
        ModelError
            If there is none.
        """
        found = getattr(self.problem, "grid", None)
        if found is None:
            found = max(self.start.values(), key=np.size).shape
        if not found:
            raise ModelError(
                f"several ranks cannot share an item of the problem "
                f"{type(self.problem).__name__}: its parameters are no fields on a grid; leave "
                "ranks_per_shot at 1, or give the problem a member `grid`"
            )
        return tuple(int(n) for n in found)

    def variable(self, name: str, values: Any, prefix: tuple[str, ...] = ()) -> Variable:
        """A parameter with its dimensions and unit."""
        n = self.start[name].ndim
        dims = tuple(self.member("dims", name, tuple(f"{name}_{k}" for k in range(n))))
        if len(dims) != n:
            raise ModelError(f"dims[{name!r}] = {dims} names {len(dims)} dimensions of {n}")
        return Variable(np.asarray(values), (*prefix, *dims), self.member("units", name, ""))

    def coordinates(self) -> dict[str, Variable]:
        given = getattr(self.problem, "coords", None) or {}
        return {dim: Variable(np.asarray(v), (dim,), unit) for dim, (v, unit) in given.items()}

    def fields(self, parameters: Parameters, suffix: str) -> dict[str, Variable]:
        """What else the problem shows, named with a suffix."""
        return self._shown("fields", suffix, parameters)

    def targets(self) -> dict[str, Variable]:
        return self._shown("targets", "target")

    def _shown(self, member: str, suffix: str, *args: Any) -> dict[str, Variable]:
        shown = getattr(self.problem, member)(*args) if hasattr(self.problem, member) else {}
        for name in shown:
            if name in self.start:
                raise ModelError(f"{member}() and start() both name {name!r}: call one differently")
        return {
            f"{name}_{suffix}": Variable(np.asarray(values), tuple(dims), unit)
            for name, (values, dims, unit) in shown.items()
        }

    def true(self) -> dict[str, np.ndarray]:
        found = self.problem.true() if hasattr(self.problem, "true") else None
        return _arrays(type(self.problem).__name__, "true", found or {})

    def at_stage(self, settings: Mapping[str, Any]) -> Any:
        if not settings:
            return self.problem
        if not hasattr(self.problem, "at_stage"):
            raise ModelError(
                f"stages set {', '.join(settings)}, but the problem "
                f"{type(self.problem).__name__} has no at_stage(**settings)"
            )
        try:
            inspect.signature(self.problem.at_stage).bind(**settings)
        except TypeError as error:
            raise ModelError(
                f"stages: at_stage of the problem {type(self.problem).__name__}: {error}"
            ) from error
        found = self.problem.at_stage(**settings)
        if not hasattr(found, "misfit"):
            raise ModelError(
                f"at_stage of the problem {type(self.problem).__name__} returned "
                f"{type(found).__name__}, no problem"
            )
        return found


def _arrays(kind: str, member: str, found: Any) -> dict[str, np.ndarray]:
    if not isinstance(found, Mapping):
        raise ModelError(
            f"{member}() of the problem {kind} returned {type(found).__name__}; arrays by name "
            "are needed, as in {'velocity': array}"
        )
    try:
        return {name: np.array(value) for name, value in found.items()}
    except ValueError as error:
        raise ModelError(f"{member}() of the problem {kind}: {error}") from error


def _check_start(name: str, value: np.ndarray) -> None:
    if value.size == 0:
        raise ModelError(f"the start value of {name!r} has the shape {value.shape}: no values")
    if value.dtype.kind not in "fc":
        raise ModelError(
            f"the start value of {name!r} has dtype {value.dtype}; derivatives need floating "
            "point: write floats, or .astype(float)"
        )
    if not np.all(np.isfinite(value)):
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0])
        raise ModelError(
            f"the start value of {name!r} is not finite: it is {value[where]} at point {where}"
        )
