"""Misfit and gradient of a problem, its items shared out among the ranks."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from backsweep.api.derivatives import grad, jvp, value_and_grad, vjp
from backsweep.comm import AbstractComm, TreeSum, agreement
from backsweep.comm.tree import items_of_rank
from backsweep.errors import ModelError
from backsweep.inverse.arrays import wide
from backsweep.inverse.problem import Described, Parameters
from backsweep.runtime.checkpointing import Checkpointing, default_checkpointing
from backsweep.runtime.fingerprint import fingerprint
from backsweep.runtime.finite import at_most_once
from backsweep.runtime.report import Report


@dataclass(frozen=True)
class Cost:
    """What an evaluation took, all ranks together.

    Attributes
    ----------
    seconds : float
        On the root's clock.
    n_steps, n_advances, n_reverses : int
    snapshot_bytes_memory, snapshot_bytes_disk : int
        The most that one rank held at a time.
    all_bytes : int
        What the states of one item's scans would take, the most of any item.
    peak_bytes : int
        Peak resident memory of a rank since its start.
    compile_seconds : float
        The most of any rank.
    """

    seconds: float = 0.0
    n_steps: int = 0
    n_advances: int = 0
    n_reverses: int = 0
    snapshot_bytes_memory: int = 0
    snapshot_bytes_disk: int = 0
    all_bytes: int = 0
    peak_bytes: int = 0
    compile_seconds: float = 0.0
    schedule: str = ""
    executor: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Misfit and gradient, on the root.

    Attributes
    ----------
    value : float
    gradient : dict of ndarray, float64 or complex128
    cost : Cost
    value_fingerprint, gradient_fingerprint : str
    """

    value: float
    gradient: dict[str, np.ndarray]
    cost: Cost
    value_fingerprint: str
    gradient_fingerprint: str


@final
class Evaluator:
    """Sums over a problem's items, along a fixed tree of their numbers.

    Each method is collective: every rank must call it, `prepare` or `set_stage` first. The sum's
    bits do not depend on the number of ranks.

    Parameters
    ----------
    described : Described
    comm : AbstractComm
    checkpointing : Checkpointing, optional
        For scans that ask for nothing themselves.

    Raises
    ------
    ModelError
        If there are more ranks than items.
    """

    def __init__(
        self, described: Described, comm: AbstractComm, checkpointing: Checkpointing | None = None
    ) -> None:
        self.described = described
        self.problem = described.problem
        self.comm = comm
        self.checkpointing = checkpointing or Checkpointing()
        n = len(self.problem.items)
        if comm.size > n:
            raise ModelError(
                f"{comm.size} ranks for {n} item(s), such as shots: {comm.size - n} would have "
                f"nothing to do; start at most {n}"
            )

    def set_stage(self, settings: dict[str, Any]) -> None:
        """Go on with the problem as `at_stage` gives it, with its data at hand.

        What a rank finds wrong with its data all ranks raise together, when each has its own.
        """
        with agreement(self.comm):
            self.problem = self.described.at_stage(settings)
            self.prepare()

    def prepare(self) -> None:
        """Have the data of this rank's items."""
        if hasattr(self.problem, "prepare"):
            self._within_budget(self.problem.prepare, self._mine())

    def evaluate(self, parameters: Parameters) -> Evaluation | None:
        """Misfit and gradient; None except on the root."""
        begin = time.perf_counter()
        reports: list[Report] = []
        names = list(parameters)

        def of_item(item: Any) -> list[np.ndarray]:
            def misfit(p: Parameters) -> Any:
                return self.problem.misfit(p, item)

            value, gradient, report = value_and_grad(misfit, has_report=True)(parameters)
            reports.append(report)
            return [wide(value), *(wide(gradient[name]) for name in names)]

        total = self._sum(of_item)
        costs = self.comm.gather(_cost_of_rank(reports))
        if total is None or costs is None:
            return None
        value, *fields = total
        return Evaluation(
            float(value),
            dict(zip(names, fields, strict=True)),
            _combined(costs, time.perf_counter() - begin),
            fingerprint([value]),
            fingerprint(fields),
        )

    def gauss_newton(
        self, parameters: Parameters, direction: Parameters
    ) -> dict[str, np.ndarray] | None:
        """J^T H J times a direction, H the Hessian of the misfit of data; on the root.

        Notes
        -----
        Per item a forward sweep for J, and a gradient's sweeps for J^T.
        """
        names = list(parameters)

        def of_item(item: Any) -> list[np.ndarray]:
            def simulate(p: Parameters) -> Any:
                return self.problem.simulate(p, item)

            def compare(data: Any) -> Any:
                return self.problem.compare(data, item)

            _, data_dot = jvp(simulate, (parameters,), (direction,))
            data, pullback = vjp(simulate, parameters)
            with pullback:
                _, bar = jvp(grad(compare), (data,), (data_dot,))
                (product,) = pullback(bar)
            return [wide(product[name]) for name in names]

        total = self._sum(of_item)
        return None if total is None else dict(zip(names, total, strict=True))

    def illumination(self, parameters: Parameters) -> dict[str, np.ndarray] | None:
        """The sum of the items' illuminations; None except on the root."""
        names = list(parameters)

        def of_item(item: Any) -> list[np.ndarray]:
            found = self.problem.illumination(parameters, item)
            return [wide(found.get(name, np.ones(np.shape(parameters[name])))) for name in names]

        total = self._sum(of_item)
        return None if total is None else dict(zip(names, total, strict=True))

    def simulate(self, parameters: Parameters) -> list[np.ndarray] | None:
        """The data of all items, in their order; None except on the root."""
        mine = [
            np.asarray(self._within_budget(self.problem.simulate, parameters, item))
            for item in self._mine()
        ]
        parts = self.comm.gather(mine)
        return None if parts is None else [data for part in parts for data in part]

    def _mine(self) -> Sequence[Any]:
        items = self.problem.items
        return [items[k] for k in items_of_rank(len(items), self.comm.rank, self.comm.size)]

    def _within_budget(self, function: Callable[..., Any], *args: Any) -> Any:
        with default_checkpointing(self.checkpointing):
            return function(*args)

    def _sum(self, of_item: Callable[[Any], list[np.ndarray]]) -> Sequence[np.ndarray] | None:
        items = self.problem.items
        tree = TreeSum(len(items))
        with at_most_once():  # a line search into instability is one warning, not one per item
            for number in items_of_rank(len(items), self.comm.rank, self.comm.size):
                tree.add(number, self._within_budget(of_item, items[number]))
        return tree.reduce(self.comm)


def _cost_of_rank(reports: list[Report]) -> Cost:
    scans = [scan for report in reports for scan in report.scans]

    def most(name: str) -> int:
        return max((sum(getattr(s, name) for s in r.scans) for r in reports), default=0)

    return Cost(
        n_steps=sum(s.n_steps for s in scans),
        n_advances=sum(s.n_advances for s in scans),
        n_reverses=sum(s.n_reverses for s in scans),
        snapshot_bytes_memory=most("snapshot_bytes_memory"),
        snapshot_bytes_disk=most("snapshot_bytes_disk"),
        all_bytes=most("all_bytes"),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        compile_seconds=sum(r.compile_seconds for r in reports),
        schedule=", ".join(dict.fromkeys(s.schedule for s in scans)),
        executor=", ".join(dict.fromkeys(s.executor for s in scans)),
    )


def _combined(costs: Sequence[Cost], seconds: float) -> Cost:
    def total(name: str) -> int:
        return sum(getattr(c, name) for c in costs)

    def most(name: str) -> Any:
        return max(getattr(c, name) for c in costs)

    return Cost(
        seconds=seconds,
        n_steps=total("n_steps"),
        n_advances=total("n_advances"),
        n_reverses=total("n_reverses"),
        snapshot_bytes_memory=most("snapshot_bytes_memory"),
        snapshot_bytes_disk=most("snapshot_bytes_disk"),
        all_bytes=most("all_bytes"),
        peak_bytes=most("peak_bytes"),
        compile_seconds=most("compile_seconds"),
        schedule=costs[0].schedule,
        executor=costs[0].executor,
    )
