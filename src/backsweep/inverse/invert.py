"""The whole inversion: stages, regularisation, preconditioner, over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, final, get_args

import numpy as np

from backsweep.api.derivatives import grad, jvp, value_and_grad
from backsweep.comm import AbstractComm, SerialComm, Team
from backsweep.errors import ModelError
from backsweep.inverse.arrays import wide
from backsweep.inverse.evaluate import Evaluation, Evaluator
from backsweep.inverse.history import History, Row
from backsweep.inverse.optimise import BudgetSpent, gauss_newton_cg, lbfgsb
from backsweep.inverse.problem import Described, Parameters
from backsweep.inverse.transforms import Unknown, Unknowns
from backsweep.runtime.checkpointing import Checkpointing

#: Cells that are seen by less than this part of the best seen are not amplified further.
ILLUMINATION_FLOOR = 1e-2

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


def invert(
    problem: Any,
    inversion: Inversion,
    *,
    comm: AbstractComm | None = None,
    checkpointing: Checkpointing | None = None,
    on_evaluation: Callable[[History], None] = lambda history: None,
    history: History | None = None,
) -> History:
    """Find the parameters of least misfit. Collective: every rank must call.

    Parameters
    ----------
    problem : Problem
        Equal on all ranks.
    inversion : Inversion
    comm : AbstractComm, optional
    checkpointing : Checkpointing, optional
    on_evaluation : callable
        Called on the root after each evaluation.
    history : History, optional
        Filled in as the inversion goes on, for whoever wants to save it after an exception.

    Returns
    -------
    History
        Empty except on the root.

    Raises
    ------
    ModelError
        If problem and inversion do not fit, or the history is that of another problem.

    Notes
    -----
    An error on one rank leaves the others waiting. After `backsweep.comm.connect` one that nobody
    catches ends all of them; whoever catches it must call ``comm.abort``.

    Examples
    --------
    >>> import numpy as np
    >>> class Line:
    ...     items = [(0.0, 1.0), (1.0, 3.0)]  # x, y
    ...
    ...     def start(self):
    ...         return {"slope": np.array(1.0), "shift": np.array(0.0)}
    ...
    ...     def misfit(self, parameters, item):
    ...         x, y = item
    ...         return (parameters["slope"] * x + parameters["shift"] - y) ** 2
    >>> history = invert(Line(), Inversion((Stage(20),)))
    >>> round(float(history.best["slope"]), 6)
    2.0
    """
    comm = comm or SerialComm()
    history = history or History(Described(problem))
    if history.described.problem is not problem:
        raise ModelError("the history is that of another problem: make a History(Described(...))")
    evaluator = Evaluator(history.described, comm, checkpointing)
    check_inversion(history.described, inversion)
    tasks = {
        name: getattr(evaluator, name)
        for name in ("evaluate", "gauss_newton", "illumination", "set_stage")
    }
    with Team(comm, tasks) as team:
        if comm.is_root:
            _Run(history, inversion, team, on_evaluation).run()
    return history


def check_inversion(described: Described, inversion: Inversion) -> None:
    """What can be known before the first evaluation.

    Raises
    ------
    ModelError
        If problem and inversion do not fit.
    """
    for stage in inversion.stages:
        described.at_stage(stage.settings)
    settings = _unknown_settings(described, inversion.unknowns)
    Unknowns(described.start, settings)
    if inversion.method == "Gauss-Newton-CG":
        _need(described, ("simulate", "compare"), "method = 'Gauss-Newton-CG'")
        if any(u.bounds and u.transform != "logistic" for u in settings.values()):
            raise ModelError(
                "Gauss-Newton-CG knows no bounds: use transform = 'logistic', or L-BFGS-B"
            )
    if inversion.preconditioner == "illumination":
        _need(described, ("illumination",), "preconditioner = 'illumination'")
    for name in inversion.regularisers:
        if name not in described.start:
            raise ModelError(
                f"regularisation is asked for {name!r}, but the parameters are "
                f"{', '.join(described.start)}"
            )


def _need(described: Described, members: tuple[str, ...], what: str) -> None:
    missing = [m for m in members if not hasattr(described.problem, m)]
    if missing:
        raise ModelError(
            f"{what} needs {' and '.join(missing)}, which the problem "
            f"{type(described.problem).__name__} does not have"
        )


def _unknown_settings(described: Described, given: Mapping[str, Unknown]) -> dict[str, Unknown]:
    """Settings of the run, completed by masks and scales of the problem."""
    settings = dict(given)
    for name, start in described.start.items():
        own = settings.get(name, Unknown())
        masks = [m for m in (described.member("masks", name), own.mask) if m is not None]
        for mask in masks:
            if np.shape(mask) != start.shape:
                raise ModelError(
                    f"{name}: a mask of shape {np.shape(mask)}, that of the parameter is "
                    f"{start.shape}"
                )
        if masks:
            own = replace(own, mask=np.logical_and.reduce(masks))
        size = described.member("scales", name)
        if own.scale is None and size is not None:
            own = replace(own, scale=own.scale_of(start, size))
        settings[name] = replace(own, scale=np.asarray(own.scale_at(start)))
    return settings


@final
class _Run:
    """The root's part."""

    def __init__(
        self,
        history: History,
        inversion: Inversion,
        team: Team,
        on_evaluation: Callable[[History], None],
    ) -> None:
        self.history = history
        self.inversion = inversion
        self.team = team
        self.on_evaluation = on_evaluation
        self.described = history.described
        self.stage = 0
        self.n_left = 0

    def run(self) -> None:
        parameters = dict(self.described.start)
        self.history.add_model(parameters)
        reasons = []
        for number, stage in enumerate(self.inversion.stages):
            self.stage = number
            self.n_left = stage.evaluations
            self.team("set_stage", dict(stage.settings))
            reasons.append(self._run_stage(parameters))
            parameters = self.unknowns.inside(self.history.best or parameters)
        self.history.reason = "; ".join(reasons)
        self.history.status = "finished"

    def _run_stage(self, start: Parameters) -> str:
        settings = _unknown_settings(self.described, self.inversion.unknowns)
        if self.inversion.preconditioner == "illumination":
            settings = _amplified(settings, self.team("illumination", start))
        self.unknowns = Unknowns(start, settings)
        self.first_misfit: float | None = None
        self.lowest = np.inf
        options = {"tolerance": self.inversion.tolerance}

        def on_iterate(x: np.ndarray) -> None:
            self.history.add_model(self.unknowns.parameters(x))

        x0 = self.unknowns.x0
        if self.inversion.method == "Gauss-Newton-CG":
            n = self.inversion.inner_iterations
            return gauss_newton_cg(
                self.objective, self.product, x0, on_iterate, inner_iterations=n, **options
            )
        return lbfgsb(
            self.objective,
            x0,
            self.unknowns.bounds,
            on_iterate,
            first_step=self.inversion.first_step,
            history=self.inversion.history,
            **options,
        )

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit relative to the stage's first one, with regularisation; its gradient."""
        self._spend()
        parameters = self.unknowns.parameters(x)
        evaluation = self.team("evaluate", parameters)
        first = self.first_misfit = self.first_misfit or _positive(evaluation.value)
        value = evaluation.value / first
        bars = {name: g / first for name, g in evaluation.gradient.items()}
        for name, penalty in self._penalties():
            more, bar = value_and_grad(penalty)(wide(parameters[name]))
            value, bars[name] = value + float(more), bars[name] + bar
        gradient = self.unknowns.pullback(x, bars)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            return self._rejected(evaluation, gradient, parameters)
        norm = float(np.linalg.norm(gradient))
        self.history.rows.append(Row(self.stage, evaluation.value, value, norm, evaluation.cost))
        self.history.last = evaluation
        if value < self.lowest:
            self.lowest, self.uphill = value, -gradient
            self.history.best = {k: np.array(v) for k, v in parameters.items()}
        self.on_evaluation(self.history)
        return value, gradient

    def product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Gauss-Newton Hessian of the objective times a vector."""
        self._spend(to_keep=1)
        parameters, direction = jvp(self.unknowns.parameters, (x,), (v,))
        found = self.team("gauss_newton", parameters, direction)
        first = self.first_misfit
        bars = {name: g / first for name, g in found.items()}
        for name, penalty in self._penalties():
            args = wide(parameters[name]), wide(direction[name])
            bars[name] = bars[name] + jvp(grad(penalty), args[:1], args[1:])[1]
        return self.unknowns.pullback(x, bars)

    def _penalties(self) -> list[tuple[str, Callable[[Any], Any]]]:
        def bound(regulariser: Regulariser, start: np.ndarray) -> Callable[[Any], Any]:
            return lambda parameter: regulariser(parameter, start)

        return [
            (name, bound(regulariser, wide(self.described.start[name])))
            for name, regularisers in self.inversion.regularisers.items()
            for regulariser in regularisers
        ]

    def _rejected(
        self, evaluation: Evaluation, gradient: np.ndarray, parameters: Parameters
    ) -> tuple[float, np.ndarray]:
        """What a line search is told of a model at which the simulation is unstable.

        Twice the lowest objective, as steep uphill as the best point is downhill: it goes back.

        Raises
        ------
        ModelError
            Where nothing is known to go back to.
        """
        if np.isinf(self.lowest):
            self.described.check(parameters)  # it may know why
            raise ModelError(
                f"evaluation {len(self.history.rows) + 1}: the misfit is {evaluation.value:.6g} "
                f"and {np.sum(~np.isfinite(gradient))} values of the gradient are not finite; the "
                "simulation is unstable for this model: use a smaller time step"
            )
        value, norm = 2 * self.lowest, float(np.linalg.norm(self.uphill))
        self.history.rows.append(Row(self.stage, np.inf, value, norm, evaluation.cost))
        self.on_evaluation(self.history)
        return value, self.uphill

    def _spend(self, to_keep: int = 0) -> None:
        if self.n_left <= to_keep:
            raise BudgetSpent
        self.n_left -= 1


def _amplified(
    settings: Mapping[str, Unknown], illumination: Mapping[str, np.ndarray]
) -> dict[str, Unknown]:
    """Units of the unknowns larger where less energy comes (the inverse square root).

    Relative to the best seen of the cells that are sought: the source itself may be far brighter.
    """
    found = dict(settings)
    for name, values in illumination.items():
        mask = settings[name].mask
        most = np.max(values if mask is None else values[mask], initial=0.0)
        if most > 0:
            relative = np.minimum(values / most, 1.0)
            scale = settings[name].scale * (relative + ILLUMINATION_FLOOR) ** -0.5
            found[name] = replace(settings[name], scale=scale)
    return found


def _positive(value: float) -> float:
    return value if value > 0 else 1.0


__all__ = ["Inversion", "Stage", "check_inversion", "invert"]
