"""Misfit and gradient of a problem, its items shared out among the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, final

import numpy as np

from backsweep.api.derivatives import grad, jvp, value_and_grad, vjp
from backsweep.comm import AbstractComm, BlockedArray, Decomposition, Groups, agreement
from backsweep.comm.tree import Node, Terms, items_of_rank
from backsweep.errors import ModelError
from backsweep.inverse.arrays import wide
from backsweep.inverse.cost import Cost, cost_of, counts_of
from backsweep.inverse.problem import Described, Parameters
from backsweep.inverse.under_way import PartialSum, UnderWay
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing, default_checkpointing
from backsweep.runtime.fingerprint import fingerprint

RanksPerItem = int | Literal["auto"]

SHORT = 0.25  # s: an item that takes less is not worth points in its middle


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
    ranks_per_item : int or "auto"
        So many ranks work on one item, whose grid is cut into blocks; "auto": as few as leave
        no rank without work.
    items : range, optional
        Only these are added up, with `partial_sums`. Default: all.

    Raises
    ------
    ModelError
        If there are more groups of ranks than items, or no grid to cut.
    """

    def __init__(
        self,
        described: Described,
        comm: AbstractComm,
        checkpointing: Checkpointing | None = None,
        ranks_per_item: RanksPerItem = 1,
        items: range | None = None,
    ) -> None:
        self.described = described
        self.problem = described.problem
        self.comm = comm
        self.checkpointing = _of_parts(checkpointing or Checkpointing())
        self._is_short = False
        self.items = range(len(self.problem.items)) if items is None else items
        n = len(self.items)
        self.ranks = Groups.of(comm, ranks_of_item(ranks_per_item, comm.size, n))
        if self.ranks.count > n:
            raise ModelError(
                f"{comm.size} ranks for {n} item(s), such as shots: {comm.size - n} would have "
                f"nothing to do; start at most {n}, or let several work on one item "
                "(ranks_per_shot = 'auto')"
            )
        self.decomposition: Decomposition | None = None
        if self.ranks.own.size > 1:
            self.decomposition = Decomposition(described.grid(), comm=self.ranks.own)

    def set_stage(self, settings: dict[str, Any]) -> None:
        """Go on with the problem as `at_stage` gives it, with its data at hand.

        What a rank finds wrong with its data all ranks raise together, when each has its own.
        """
        with agreement(self.comm), stop.abandoning():
            self.problem = self.described.at_stage(settings)
            self.prepare()

    def prepare(self) -> None:
        """Have the data of this rank's items."""
        if hasattr(self.problem, "prepare"):
            self._within_budget(self.problem.prepare, self._mine())

    def evaluate(
        self, parameters: Parameters, under_way: UnderWay | None = None
    ) -> Evaluation | None:
        """Misfit and gradient; None except on the root.

        Parameters
        ----------
        parameters : dict of ndarray
        under_way : UnderWay, optional
            Where what is done of it is kept, and found; so for the other methods.

        Raises
        ------
        Stopped
            On all ranks, when a signal came to one; so for the other methods.
        """
        found = self.partial_sums(parameters, under_way)
        if found is None:
            return None
        nodes, cost = found
        return evaluation_of(list(parameters), _whole(nodes), cost)

    def partial_sums(
        self, parameters: Parameters, under_way: UnderWay | None = None
    ) -> tuple[dict[Node, Terms], Cost] | None:
        """Misfit and gradient as nodes of the tree of all items, for `evaluation_of`.

        None except on the root.
        """
        begin = time.perf_counter()
        names = list(parameters)

        def of_item(number: int) -> tuple[list[np.ndarray], Cost]:
            def misfit(p: Parameters) -> Any:
                return self.problem.misfit(p, self.problem.items[number])

            of_misfit = value_and_grad(misfit, has_report=True, decomposition=self.decomposition)
            value, gradient, report = of_misfit(parameters)
            self._is_short = self.ranks.own.broadcast(report.seconds < SHORT)
            fields = [wide(_gathered(gradient[name])) for name in names]
            return [wide(value), *fields, counts_of(report)], cost_of(report)

        part = self._part(under_way)
        nodes = part.run(of_item, is_resumable=not self._is_short, is_shared=True)
        if nodes is None:
            return None
        return nodes, replace(part.cost, seconds=time.perf_counter() - begin)

    def gauss_newton(
        self, parameters: Parameters, direction: Parameters, under_way: UnderWay | None = None
    ) -> dict[str, np.ndarray] | None:
        """J^T H J times a direction, H the Hessian of the misfit of data; on the root.

        Notes
        -----
        Per item a forward sweep for J, and a gradient's sweeps for J^T.
        """
        names = list(parameters)

        def of_item(number: int) -> tuple[list[np.ndarray], Cost]:
            item = self.problem.items[number]

            def simulate(p: Parameters) -> Any:
                return self.problem.simulate(p, item)

            def compare(data: Any) -> Any:
                return self.problem.compare(data, item)

            _, data_dot = jvp(simulate, (parameters,), (direction,))
            data, pullback = vjp(simulate, parameters)
            with pullback:
                _, bar = jvp(grad(compare), (data,), (data_dot,))
                (product,) = pullback(bar)
            return [wide(product[name]) for name in names], Cost()

        nodes = self._part(under_way).run(of_item, is_resumable=False)
        return None if nodes is None else dict(zip(names, _whole(nodes), strict=True))

    def illumination(
        self, parameters: Parameters, under_way: UnderWay | None = None
    ) -> dict[str, np.ndarray] | None:
        """The sum of the items' illuminations; None except on the root."""
        names = list(parameters)

        def of_item(number: int) -> tuple[list[np.ndarray], Cost]:
            found = self.problem.illumination(parameters, self.problem.items[number])
            ones = (np.ones(np.shape(parameters[name])) for name in names)
            return [wide(found.get(*pair)) for pair in zip(names, ones, strict=True)], Cost()

        nodes = self._part(under_way).run(of_item, is_resumable=False)
        return None if nodes is None else dict(zip(names, _whole(nodes), strict=True))

    def stop(self, where: str) -> NoReturn:
        """End this rank with all others, between evaluations. Raises `Stopped`."""
        raise stop.stopped(where)

    def simulate(self, parameters: Parameters) -> list[np.ndarray] | None:
        """The data of all items, in their order; None except on the root."""
        if self.ranks.leaders is None:
            return None
        mine = [
            np.asarray(self._within_budget(self.problem.simulate, parameters, item))
            for item in self._mine()
        ]
        parts = self.ranks.leaders.gather(mine)
        return None if parts is None else [data for part in parts for data in part]

    def _mine(self) -> Sequence[Any]:
        mine = items_of_rank(len(self.items), self.ranks.index, self.ranks.count)
        return [self.problem.items[k] for k in self.items[mine.start : mine.stop]]

    def _part(self, under_way: UnderWay | None) -> PartialSum:
        n = len(self.problem.items)
        return PartialSum(n, self.items, self.ranks, self.checkpointing, under_way)

    def _within_budget(self, function: Callable[..., Any], *args: Any) -> Any:
        with default_checkpointing(self.checkpointing):
            return function(*args)


def ranks_of_item(asked: RanksPerItem, n_ranks: int, n_items: int) -> int:
    """How many ranks work on one item at least."""
    return -(-n_ranks // n_items) if asked == "auto" else min(asked, n_ranks)


def _gathered(value: Any) -> Any:
    """Of a gradient in blocks: all of it on the leader of the group, nothing on the others."""
    if not isinstance(value, BlockedArray):
        return value
    found = value.gather()
    return np.zeros(()) if found is None else found


def evaluation_of(names: Sequence[str], total: Terms, cost: Cost) -> Evaluation:
    """What the sum over all items says."""
    value, *fields, counts = total
    n_steps, n_advances, n_reverses = (int(n) for n in counts)
    cost = replace(cost, n_steps=n_steps, n_advances=n_advances, n_reverses=n_reverses)
    gradient = dict(zip(names, fields, strict=True))
    return Evaluation(float(value), gradient, cost, fingerprint([value]), fingerprint(fields))


def _whole(nodes: dict[Node, Terms]) -> Terms:
    (total,) = nodes.values()
    return total


def _of_parts(request: Checkpointing) -> Checkpointing:
    """For scans that are not durable themselves: `directory` without what resumes."""
    if not request.resume:
        return request
    folder = request.snapshot_folder if request.uses_disk else None
    return replace(request, resume=False, fresh=False, directory=None, scratch=folder)
