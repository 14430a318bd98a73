"""Tracing the step of a scan or of a loop: what both do to their carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backsweep.api.names import argument_names
from backsweep.api.tracer import Traced, finish, materialized
from backsweep.api.tree import Tree, flatten
from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Program, interned
from backsweep.primitives.elementwise import convert
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import Trace, at_user_line, new_trace, trace_error


def initial(trace: Trace, leaves: Sequence[Any], types: Sequence[ArrayType]) -> list[Atom]:
    """The first carry as values of the active trace."""
    atoms = [materialized(trace, lift(leaf)) for leaf in leaves]
    return [convert(trace.builder, a, t.dtype) for a, t in zip(atoms, types, strict=True)]


class StepTrees:
    """Structure of what a step returned."""

    def __init__(self, carry: Tree, ys: Tree, n_carry: int) -> None:
        self.carry, self.ys, self.n_carry = carry, ys, n_carry


def _carry_and_y(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise trace_error(
            f"the step must return (carry, y), it returned {type(result).__name__}; "
            "return None for y where nothing is recorded"
        )
    return result


def trace_step(
    step: Any,
    carry_types: Sequence[ArrayType],
    x_types: Sequence[ArrayType],
    carry_tree: Tree,
    x_tree: Tree | None,
    parts: Callable[[Any], tuple[Any, Any]] = _carry_and_y,
) -> Traced:
    """Trace a step on a carry, and on an x where there is a tree for it.

    `parts` makes (carry, y) of what the step returned.
    """
    with new_trace(step) as trace:
        names = argument_names(step, 0, len(carry_types)) + argument_names(step, 1, len(x_types))
        variables = [
            trace.builder.input(t, name)
            for t, name in zip((*carry_types, *x_types), names, strict=True)
        ]
        n = len(carry_types)
        arguments = [carry_tree.build([wrap(v) for v in variables[:n]])]
        if x_tree is not None:
            arguments.append(x_tree.build([wrap(v) for v in variables[n:]]))
        carry, y = parts(step(*arguments))
        carry_leaves, out_tree = flatten(carry)
        y_leaves, y_tree = flatten(y)
        outputs = [materialized(trace, lift(leaf)) for leaf in (*carry_leaves, *y_leaves)]
    trees: Any = StepTrees(out_tree, y_tree, len(carry_leaves))
    return finish(trace, variables, outputs, trees, "step")


def strengthened(types: list[ArrayType], traced: Traced) -> list[ArrayType]:
    """Weak carries take the dtype that the step gives them."""
    outs = traced.program.out_types
    if traced.out_tree.n_carry != len(types):  # type: ignore[attr-defined]
        return types
    return [
        ArrayType(t.shape, o.dtype) if t.weak and o.dtype != t.dtype else t  # type: ignore
        for t, o in zip(types, outs, strict=False)
    ]


def check_carry(name: str, tree: Tree, types: list[ArrayType], traced: Traced) -> None:
    """Refuse a step of a scan or a loop that returns another carry than it got."""
    trees: Any = traced.out_tree
    if not tree.same_as(trees.carry):
        raise ShapeError(
            f"{name}: the carry changes its structure: it came as {tree.spec} and the step "
            f"returns {trees.carry.spec}{at_user_line()}"
        )
    for path, given, out in zip(tree.paths(), types, traced.program.out_types, strict=False):
        if (given.shape, given.dtype) != (out.shape, out.dtype):  # type: ignore[union-attr]
            is_cast = given.shape == out.shape
            hint = f"; convert with .astype({given.dtype})" if is_cast else ""
            raise ShapeError(
                f"{name}: the carry{path} came as {given} and the step returns {out}: shapes and "
                f"dtypes must stay{hint}{at_user_line()}"
            )


@dataclass(frozen=True)
class Divided:
    """A step whose carries that never change are constants.

    Attributes
    ----------
    step : Program
    consts, init : list of Atom
        What to pass for its constants and for the carries that move.
    moving, fixed : list of int
        Numbers of the carries.
    given : list of Atom
        What came for all carries.
    """

    step: Program
    consts: list[Atom]
    init: list[Atom]
    moving: list[int]
    fixed: list[int]
    given: list[Atom]

    def whole_carry(self, results: Sequence[Atom]) -> list[Atom]:
        """All carries from those that moved."""
        final = dict(zip(self.moving, results, strict=False))
        return [final.get(k, a) for k, a in enumerate(self.given)]


def divided(traced: Traced, init: list[Atom]) -> Divided:
    """Make constants of the carries that never change."""
    program, a, n_carry = traced.program, traced.n_captured, len(init)
    carry = program.inputs[a : a + n_carry]
    moving = [k for k, v in enumerate(carry) if program.outputs[k] is not v]
    fixed = [k for k, v in enumerate(carry) if program.outputs[k] is v]
    inputs = (
        *program.inputs[:a],
        *(carry[k] for k in fixed),
        *(carry[k] for k in moving),
        *program.inputs[a + n_carry :],
    )
    outputs = (*(program.outputs[k] for k in moving), *program.outputs[n_carry:])
    step = interned(Program(inputs, program.equations, outputs, "step"))
    consts = [*traced.captured, *(init[k] for k in fixed)]
    return Divided(step, consts, [init[k] for k in moving], moving, fixed, init)
