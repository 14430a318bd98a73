"""checkpoint, stop_gradient, sum_over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backsweep.api.tracer import apply_program, materialized, trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.errors import ShapeError
from backsweep.ir import Equation, Program, Var
from backsweep.primitives import control as c
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
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
    shots never hold eight trajectories. Values and gradients are added along a fixed binary tree
    over the items' numbers, of which log2(n) + 1 partial sums are held at a time.

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
    bodies = _with_own_views(
        [_Item(dict(zip(t.captured, t.program.inputs, strict=True)), t.program) for t in traced],
        trace.builder.equations,
    )
    atoms = list(dict.fromkeys(a for item in bodies for a in item.captured))
    programs = []
    for item in bodies:
        inputs = tuple(item.captured.get(a) or Var(a.type) for a in atoms)
        programs.append(Program(inputs, item.program.equations, item.program.outputs, "item"))
    if any(p.out_types != programs[0].out_types for p in programs):
        raise ShapeError("sum_over: the items return values of different shapes or dtypes")
    results = trace.emit(c.sum_of, *atoms, programs=tuple(programs))
    return traced[0].out_tree.build([wrap(r) for r in results])


@dataclass
class _Item:
    """The program of one item, and its input for each value of the enclosing trace."""

    captured: dict[Any, Var]
    program: Program


_VIEWS = (ix.slice_, sh.transpose, sh.reshape)


def _with_own_views(items: list[_Item], outer: Sequence[Equation]) -> list[_Item]:
    """Move views that only some items capture into these items.

    A slice of a traced array belongs to the array's trace. As an input it would have a gradient of
    its own, beside those of the slices of all other items, which are zero in this one; the array
    itself has one gradient for all.
    """
    definitions = {v: e for e in outer if e.primitive in _VIEWS for v in e.outputs}
    while True:
        uses = Counter(a for item in items for a in item.captured)
        moved = {a for a, n in uses.items() if n < len(items) and a in definitions}
        if not moved:
            return items
        items = [_with_views(item, moved, definitions) for item in items]


def _with_views(item: _Item, moved: set[Any], definitions: dict[Any, Equation]) -> _Item:
    captured = {a: v for a, v in item.captured.items() if a not in moved}
    equations = []
    for atom, var in item.captured.items():
        if atom in moved:
            eqn = definitions[atom]
            (base,) = eqn.inputs
            own = captured.setdefault(base, Var(base.type))
            equations.append(Equation(eqn.primitive, (own,), eqn.params, (var,), eqn.source))
    program = item.program
    inputs = tuple(captured.values())
    return _Item(
        captured, Program(inputs, (*equations, *program.equations), program.outputs, program.name)
    )


__all__ = ["checkpoint", "remat", "stop_gradient", "sum_over"]
