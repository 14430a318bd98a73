"""Seconds of a gradient on any number of ranks, from what is measured on those that are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, final

from backsweep.api.calls import Argnums
from backsweep.api.decomposed import cut, digest
from backsweep.api.derivatives import value_and_grad
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.codegen.statistics import statistics
from backsweep.comm import AbstractComm, Decomposition, PlannedComm, serial
from backsweep.errors import MachineError
from backsweep.ir import Program
from backsweep.runtime.calibrate import measure_machine, step_rates
from backsweep.runtime.checkpointing import default_checkpointing, effective
from backsweep.runtime.costs import Nodes, Prediction, predict
from backsweep.runtime.forecast import Forecast, forecast
from backsweep.runtime.machine import Measured
from backsweep.runtime.work import Place, Work, sampled_ranks, work_of_program

T = TypeVar("T")


def scaling(
    function: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    decomposition: Decomposition | None = None,
    comm: AbstractComm | None = None,
    measured: Measured | None = None,
    folder: str | Path = ".",
) -> Callable[..., Scaling]:
    """A function that tells what `value_and_grad` would take on any number of ranks.

    Parameters
    ----------
    function, argnums
        As for `value_and_grad`. It is traced; values of arguments do not matter.
    decomposition : Decomposition, optional
        As for `value_and_grad`: how the grid is cut, and whose ranks measure.
    comm : AbstractComm, optional
        Of a gradient that is not cut: the ranks that measure it at the same time. Default: one.
    measured : Measured, optional
        Parameters that were measured before, on this machine or another one. Without them they are
        measured: some seconds, and the time to compile.
    folder : path
        Where snapshots on disk would go.

    Returns
    -------
    callable
        Returns a `Scaling`. Collective where it measures: every rank must call.

    Raises
    ------
    MachineError
        If the folder cannot be written to, or what was measured is of another program.

    Notes
    -----
    The model, its terms and how well it predicts: docs/scaling.md.

    Examples
    --------
    >>> blocks = bs.Decomposition((512, 512), axes=(0, 1))
    >>> found = bs.scaling(misfit, decomposition=blocks)(model)
    >>> print(found.on(4096, ranks_per_node=64))
    """
    gradient = value_and_grad(function, argnums)

    def found(*args: Any) -> Scaling:
        leaves, tree = flatten(tuple(args))
        types = [type_of(leaf) for leaf in leaves]
        is_cut = decomposition is not None
        traced, seconds = _timed(lambda: trace_function(gradient, types, tree, is_cut=is_cut))
        program, values = traced.program, (*traced.captured, *leaves)
        if measured is not None:
            return Scaling(program, values, decomposition, measured, seconds)
        ranks = comm or (serial() if decomposition is None else decomposition.comm)
        return _measured(
            Scaling(program, values, decomposition, Measured(), seconds), ranks, folder
        )

    return found


@final
@dataclass(frozen=True)
class Scaling:
    """A gradient whose seconds are predicted.

    Attributes
    ----------
    program : Program
        On global shapes.
    values : sequence
        Of its inputs.
    decomposition : Decomposition or None
    measured : Measured
    trace_seconds, compile_seconds : float
        To trace it; to compile it while measuring, 0 where the code was in the cache.
    """

    program: Program
    values: Sequence[Any]
    decomposition: Decomposition | None
    measured: Measured
    trace_seconds: float
    compile_seconds: float = 0.0

    def on(
        self,
        n_ranks: int = 1,
        ranks_per_node: int | None = None,
        *,
        n_others: int = 0,
        threads: int = 0,
    ) -> Prediction:
        """Seconds of one gradient whose grid so many ranks share.

        Parameters
        ----------
        n_ranks : int
        ranks_per_node : int, optional
            Default: one for each core.
        n_others : int
            Ranks of the same job that work on gradients of their own.
        threads : int
            Of each rank. Default: its share of a node's cores.

        Raises
        ------
        MachineError
            If there is no decomposition to share.
        DecompositionError, CommError
            If the program or its grid cannot be cut for as many.
        """
        per_node = ranks_per_node or self.measured.machine.cores
        nodes = Nodes(n_ranks, per_node, self.measured.machine, n_others, threads)
        if self.decomposition is None:
            if n_ranks > 1:
                raise MachineError(
                    f"{n_ranks} ranks cannot share a gradient that is not cut: give decomposition="
                )
            return predict(self._work(None, nodes), self.measured.steps, nodes)
        d = self.decomposition
        blocks = Decomposition(d.shape, d.axes, PlannedComm(n_ranks), periodic=d.periodic)
        works = [self._work(_as_rank(blocks, rank), nodes) for rank in sampled_ranks(blocks)]
        predictions = [predict(work, self.measured.steps, nodes) for work in works]
        slowest = max(predictions, key=lambda p: p.seconds)
        return replace(slowest, memory_bytes=max(p.memory_bytes for p in predictions))

    def _work(self, blocks: Decomposition | None, nodes: Nodes) -> Work:
        """Of one rank."""
        program, place, seconds, cutting = self.program, None, self.trace_seconds, 0.0
        if blocks is not None:
            local, cutting = _timed(lambda: cut(self.program, self.values, blocks))
            if blocks.n_ranks > 1:  # one rank runs the program itself
                _, comparing = _timed(lambda: digest(self.program, self.values))
                program, place = local.program, Place(blocks, blocks.comm.rank, nodes.per_node)
                seconds += comparing
        planned, planning = _timed(lambda: _planned(program, nodes))
        work = work_of_program(program, planned, place)
        return replace(work, fixed_seconds=seconds + planning, cut_seconds=cutting)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result, and the core seconds of the faster of two calls: the first may load code.

    Of this thread alone: all ranks do it at once, some of them perhaps on one core.
    """
    begin = time.thread_time()
    work()
    middle = time.thread_time()
    result = work()
    return result, min(middle - begin, time.thread_time() - middle)


def _as_rank(blocks: Decomposition, rank: int) -> Decomposition:
    """The same blocks, as another rank of them sees them."""
    comm = PlannedComm(blocks.n_ranks, rank)
    return Decomposition(
        blocks.shape, blocks.axes, comm, periodic=blocks.periodic, ranks=blocks.ranks
    )


def _planned(program: Program, nodes: Nodes) -> Forecast:
    """With the memory that a rank would have, where nobody has said how much."""
    request = effective(None)
    if request.memory is None:
        request = replace(request, memory=nodes.machine.memory_bytes // (2 * nodes.on_node))
    with default_checkpointing(request):
        return forecast(program)


def _measured(unknown: Scaling, comm: AbstractComm, folder: str | Path) -> Scaling:
    """The same with parameters. Collective: every rank must call."""
    program = unknown.program
    if unknown.decomposition is not None and comm.size > 1:
        program = cut(program, unknown.values, unknown.decomposition).program
    machine = measure_machine(comm, folder)
    before = statistics.seconds
    comm.allgather(None)
    rates = step_rates(forecast(program, measure=True), comm)
    seconds = max(comm.allgather(statistics.seconds - before))
    tracing = max(comm.allgather(unknown.trace_seconds))
    found = Measured(machine, rates)
    return replace(unknown, measured=found, trace_seconds=tracing, compile_seconds=seconds)
