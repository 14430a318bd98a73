"""The root's part of an inversion: stages, objective, budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np

from backsweep.api.derivatives import grad, jvp, value_and_grad
from backsweep.errors import ModelError
from backsweep.inverse.arrays import wide
from backsweep.inverse.evaluate import Evaluation
from backsweep.inverse.history import History, Row
from backsweep.inverse.inversion import Inversion, Regulariser
from backsweep.inverse.optimise import BudgetSpent, gauss_newton_cg, lbfgsb
from backsweep.inverse.problem import Parameters
from backsweep.inverse.replay import Calls, Diverged
from backsweep.inverse.transforms import Unknowns
from backsweep.inverse.units import amplified, unknown_settings

SPENT = "all evaluations are spent"


@final
class RootRun:
    """The root's part.

    Parameters
    ----------
    history : History
        Filled in.
    inversion : Inversion
    calls : Calls
    on_evaluation : callable
        After each evaluation that is not from a record.
    say : callable
        Told a sentence for the user.
    """

    def __init__(
        self,
        history: History,
        inversion: Inversion,
        calls: Calls,
        on_evaluation: Callable[[History], None],
        say: Callable[[str], None],
    ) -> None:
        self.history = history
        self.inversion = inversion
        self.calls = calls
        self.on_evaluation = on_evaluation
        self.say = say
        self.described = history.described
        self.parameters = dict(self.described.start)
        self.reasons: list[str] = []
        self._begin_stage(0)

    def run(self) -> None:
        self.history.add_model(self.parameters)
        if self.calls.has_past:
            self._go_through_past()
        while self.stage < len(self.inversion.stages):
            try:
                reason = self._run_stage()
            except Diverged:
                n = self.calls.start_anew()
                self.say(
                    f"after evaluation {len(self.history.rows)} of {n} recorded ones the optimiser "
                    "went another way than before (another CPU or library): it starts again from "
                    "the best recorded model"
                )
                self._go_through_past()
            else:
                self._end_stage(reason)
        self.history.reason = "; ".join(self.reasons)
        self.history.status = "finished"

    def _begin_stage(self, number: int) -> None:
        self.stage = number
        self.first_misfit: float | None = None
        self.lowest = np.inf
        if number < len(self.inversion.stages):
            stage = self.inversion.stages[number]
            self.n_left = stage.evaluations
            self.calls.set_stage(number, stage.settings)

    def _end_stage(self, reason: str) -> None:
        self.reasons.append(reason)
        self.parameters = self._inside(self.history.best or self.parameters)
        self._begin_stage(self.stage + 1)

    def _inside(self, parameters: Parameters) -> Parameters:
        settings = unknown_settings(self.described, self.inversion.unknowns)
        return Unknowns(self.described.start, settings).inside(parameters)

    def _go_through_past(self) -> None:
        """Take what is recorded as done, and go on in its last stage from its best model.

        The gradient's norm, which the optimiser knows alone, is unknown then, and accepted
        models are those that were better than all before.
        """
        history = self.history
        history.forget()
        self.reasons.clear()
        self.parameters = dict(self.described.start)
        self._begin_stage(0)
        for call in self.calls.past():
            while self.stage < call.stage:
                self._end_stage("restarted")
            self.n_left -= call.counts
            if call.evaluation is None or call.parameters is None:
                continue
            value, _ = self._assessed(call.parameters, call.evaluation)
            if not np.isfinite(value):
                cost = call.evaluation.cost
                history.rows.append(Row(self.stage, np.inf, 2 * self.lowest, np.nan, cost))
            elif self._accept(call.parameters, call.evaluation, value, np.nan):
                history.add_model(call.parameters)
        if history.rows and history.rows[-1].stage == self.stage and history.best is not None:
            self.parameters = self._inside(history.best)
        # The optimiser evaluates that model again, to know its gradient.
        self.lowest = np.inf

    def _run_stage(self) -> str:
        if self.n_left == 0:
            return SPENT
        settings = unknown_settings(self.described, self.inversion.unknowns)
        if self.inversion.preconditioner == "illumination":
            settings = amplified(settings, self.calls("illumination", self.parameters))
        self.unknowns = Unknowns(self.parameters, settings)
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
        evaluation = self.calls("evaluate", parameters)
        value, bars = self._assessed(parameters, evaluation)
        gradient = self.unknowns.pullback(x, bars)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            return self._rejected(evaluation, gradient, parameters)
        if self._accept(parameters, evaluation, value, float(np.linalg.norm(gradient))):
            self.uphill = -gradient
        self._tell()
        return value, gradient

    def _assessed(
        self, parameters: Parameters, evaluation: Evaluation
    ) -> tuple[float, dict[str, Any]]:
        first = self.first_misfit = self.first_misfit or _positive(evaluation.value)
        value = evaluation.value / first
        bars = {name: g / first for name, g in evaluation.gradient.items()}
        for name, penalty in self._penalties():
            more, bar = value_and_grad(penalty)(wide(parameters[name]))
            value, bars[name] = value + float(more), bars[name] + bar
        return value, bars

    def _accept(
        self, parameters: Parameters, evaluation: Evaluation, value: float, norm: float
    ) -> bool:
        """Note an evaluation; whether it is the best so far."""
        self.history.rows.append(Row(self.stage, evaluation.value, value, norm, evaluation.cost))
        self.history.last = evaluation
        if not value < self.lowest:
            return False
        self.lowest = value
        self.history.best = {k: np.array(v) for k, v in parameters.items()}
        return True

    def product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Gauss-Newton Hessian of the objective times a vector."""
        self._spend(to_keep=1)
        parameters, direction = jvp(self.unknowns.parameters, (x,), (v,))
        found = self.calls("gauss_newton", parameters, direction)
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
        self._tell()
        return value, self.uphill

    def _tell(self) -> None:
        if not self.calls.is_served:
            self.on_evaluation(self.history)

    def _spend(self, to_keep: int = 0) -> None:
        if self.n_left <= to_keep:
            raise BudgetSpent
        self.n_left -= 1


def _positive(value: float) -> float:
    return value if value > 0 else 1.0
