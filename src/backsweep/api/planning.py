"""What a gradient will take, for who would rather know before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backsweep.api.calls import Argnums, trace_call
from backsweep.api.decomposed import cut
from backsweep.api.derivatives import check_loss, value_and_grad
from backsweep.api.placed import Placements, with_placements
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.comm import Decomposition
from backsweep.errors import DifferentiationError
from backsweep.passes.control import value_and_grad_program
from backsweep.runtime.forecast import Forecast, forecast, sweep_budgets


def plan(
    function: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    measure: bool = False,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> Callable[..., Forecast]:
    """A function that tells what `value_and_grad` would cost, and runs nothing of it.

    Parameters
    ----------
    function, argnums
        As for `value_and_grad`. It is traced; values of arguments do not matter.
    measure : bool
        Run some steps of each scan with made-up values, for predicted seconds. Compiles.
    decomposition : Decomposition, optional
        As for `value_and_grad`: what this rank will do. On a `comm.PlannedComm` for a job of any
        size. Seconds are those of computing, without messages.
    placement : {"replicated", "varying"} or a sequence of one for each argument, optional
        As for `value_and_grad`, of a function that calls collectives itself. Collective: every
        rank must call, but on a `comm.PlannedComm`. Without `measure`.

    Returns
    -------
    callable
        Returns a `Forecast`, which prints as a table: for each scan the schedule and why,
        snapshots and work arrays in bytes, advances and reverse steps, seconds, and what half and
        twice the memory would do; and the peak of the whole process.

    Examples
    --------
    >>> def loss(u):
    ...     budget = bs.Checkpointing(snapshots=20)
    ...     u, _ = bs.scan(lambda u, _: (np.sin(u), None), u, length=1000, checkpointing=budget)
    ...     return np.sum(u)
    >>> bs.plan(loss)(np.ones(5)).n_advances
    2748
    """
    if placement is not None:
        if measure:
            raise DifferentiationError(
                "measure=True is not supported together with placement=: each rank would run "
                "another number of trial steps; leave it out, and time a short run instead"
            )
        return _planned_together(function, argnums, placement, decomposition)
    gradient = value_and_grad(function, argnums)

    def planned(*args: Any) -> Forecast:
        leaves, tree = flatten(tuple(args))
        types = [type_of(leaf) for leaf in leaves]
        traced = trace_function(gradient, types, tree, is_cut=decomposition is not None)
        program = traced.program
        if decomposition is not None:
            values = [*traced.captured, *leaves]
            program = cut(program, values, decomposition).program
        return forecast(program, measure=measure)

    return planned


def _planned_together(
    function: Callable[..., Any],
    argnums: Argnums,
    placement: Placements,
    decomposition: Decomposition | None,
) -> Callable[..., Forecast]:
    def planned(*args: Any) -> Forecast:
        call = with_placements(trace_call(function, args, argnums), placement, decomposition)
        check_loss(call.traced.program)
        return forecast(value_and_grad_program(call.traced.program, call.active))

    return planned


def budget_sweep(
    function: Callable[..., Any], n_budgets: int = 40, argnums: Argnums = 0
) -> Callable[..., list[tuple[int, int, float]]]:
    """A function that predicts the time of a gradient for budgets from one state to all.

    Parameters
    ----------
    function, argnums
        As for `value_and_grad`.
    n_budgets : int

    Returns
    -------
    callable
        Returns (bytes, advances, seconds) of the first scan for each budget; empty if there is
        no scan. Some trial steps are run.
    """
    gradient = value_and_grad(function, argnums)

    def swept(*args: Any) -> list[tuple[int, int, float]]:
        leaves, tree = flatten(tuple(args))
        traced = trace_function(gradient, [type_of(leaf) for leaf in leaves], tree)
        return sweep_budgets(traced.program, n_budgets)

    return swept
