"""How an inverse problem is to be solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from backsweep.errors import ModelError
from backsweep.inverse.transforms import Unknown

Method = Literal["L-BFGS-B", "Gauss-Newton-CG"]
Preconditioner = Literal["none", "illumination"]
METHODS: Final = get_args(Method)
PRECONDITIONERS: Final = get_args(Preconditioner)

Regulariser = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Stage:
    """A part of an inversion, from the best model of the one before.

    Attributes
    ----------
    evaluations : int
        At most so many gradients of all items; a Gauss-Newton product counts as one.
    settings : mapping
        Handed to the problem's `at_stage`, e.g. a frequency band.
    """

    evaluations: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise ModelError(f"a stage of {self.evaluations} evaluations: at least 1 is needed")


@dataclass(frozen=True)
class Inversion:
    """How a problem is solved.

    Attributes
    ----------
    stages : tuple of Stage
    unknowns : mapping of str to Unknown
        Transform, bounds, mask, smoothing and scale of a parameter.
    regularisers : mapping of str to tuple of callables (parameter, start) -> scalar
        Added to the misfit relative to that of the start.
    method : {"L-BFGS-B", "Gauss-Newton-CG"}
    preconditioner : {"none", "illumination"}
    first_step : float
        Largest change of an unknown in the first trial step of L-BFGS-B, in its units (`scale`).
    history : int
        Pairs that L-BFGS-B remembers.
    inner_iterations : int
        Most conjugate gradient steps of a Gauss-Newton step.
    tolerance : float
        Of the gradient (L-BFGS-B: projected) relative to the first.
    """

    stages: tuple[Stage, ...]
    unknowns: Mapping[str, Unknown] = field(default_factory=dict)
    regularisers: Mapping[str, tuple[Regulariser, ...]] = field(default_factory=dict)
    method: Method = "L-BFGS-B"
    preconditioner: Preconditioner = "none"
    first_step: float = 0.02
    history: int = 20
    inner_iterations: int = 8
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if not self.stages or not all(isinstance(stage, Stage) for stage in self.stages):
            raise ModelError(f"stages = {self.stages!r}: one Stage or more is needed, in a tuple")
        for name, known in (("method", METHODS), ("preconditioner", PRECONDITIONERS)):
            if getattr(self, name) not in known:
                raise ModelError(
                    f"{name} = {getattr(self, name)!r} is not known; there are {', '.join(known)}"
                )
        for name in ("first_step", "history", "inner_iterations"):
            if not getattr(self, name) > 0:
                raise ModelError(f"{name} = {getattr(self, name)}: it must be positive")
        if not self.tolerance >= 0:
            raise ModelError(f"tolerance = {self.tolerance}: it must be zero or positive")
