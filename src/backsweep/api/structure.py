"""checkpoint, stop_gradient, sum_over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from backsweep.api.tracer import apply_program, materialized, trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.errors import ShapeError
from backsweep.ir import Program, Var
from backsweep.primitives import control as c
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import active_trace


def stop_gradient(value: Any) -> Any:
    """The same value, without derivative."""
    trace = active_trace()
    if trace is None:
        return value
    leaves, tree = flatten(value)
    return tree.build(
        [wrap(trace.emit(c.stop_gradient, materialized(trace, lift(v)))) for v in leaves]
    )


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Recompute what happens inside in the reverse pass instead of keeping residuals.

    Also known as `remat`. For time loops use `scan`, which plans its own snapshots.
    """

    def recomputed(*args: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return function(*args)
        leaves, tree = flatten(args)
        traced = trace_function(function, [type_of(v) for v in leaves], tree)
        atoms = [*traced.captured, *(materialized(trace, lift(v)) for v in leaves)]
        results = trace.emit(c.remat, *atoms, program=traced.program)
        return traced.out_tree.build([wrap(r) for r in results])

    return recomputed


remat = checkpoint


def sum_over(items: Iterable[Any], function: Callable[[Any], Any]) -> Any:
    """Sum of a function over items, such as shots; each is reversed at once.

    Because a sum is linear, the gradient of each item is taken right after its value: eight
    shots never hold eight trajectories.

    Parameters
    ----------
    items : iterable
        Any Python objects; `function` is traced for each of them.
    function : callable
        Returns a scalar (or a container of arrays, then only for forward derivatives).
    """
    listed = list(items)
    if not listed:
        raise ShapeError("sum_over: there are no items")
    if active_trace() is None:
        _, tree = flatten(())
        traced = trace_function(lambda: sum_over(listed, function), [], tree)
        return traced.out_tree.build(apply_program(traced.program, traced.captured))
    return _traced_sum(listed, function)


def _traced_sum(items: list[Any], function: Callable[[Any], Any]) -> Any:
    trace = active_trace()
    assert trace is not None
    _, empty = flatten(())
    traced = [trace_function(lambda item=item: function(item), [], empty) for item in items]
    atoms: list[Any] = []
    for t in traced:
        atoms += [a for a in t.captured if not any(a is known for known in atoms)]
    programs = []
    for t in traced:
        own = {id(a): v for a, v in zip(t.captured, t.program.inputs, strict=True)}
        inputs = tuple(own.get(id(a)) or Var(a.type) for a in atoms)
        programs.append(Program(inputs, t.program.equations, t.program.outputs, "item"))
    if any(p.out_types != programs[0].out_types for p in programs):
        raise ShapeError("sum_over: the items return values of different shapes or dtypes")
    results = trace.emit(c.sum_of, *atoms, programs=tuple(programs))
    return traced[0].out_tree.build([wrap(r) for r in results])


__all__ = ["checkpoint", "remat", "stop_gradient", "sum_over"]
