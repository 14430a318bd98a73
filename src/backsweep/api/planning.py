"""What a gradient will take, for who would rather know before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backsweep.api.calls import Argnums
from backsweep.api.decomposed import cut
from backsweep.api.derivatives import value_and_grad
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.comm import Decomposition
from backsweep.runtime.forecast import Forecast, forecast, sweep_budgets


def plan(
    function: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    measure: bool = False,
    decomposition: Decomposition | None = None,
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
