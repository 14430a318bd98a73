"""`scan`: a time loop that is traced once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backsweep.api.names import argument_names
from backsweep.api.tracer import (
    Traced,
    finish,
    materialized,
    run_traced,
    type_of,
)
from backsweep.api.tree import Tree, flatten
from backsweep.errors import ShapeError, TraceError
from backsweep.ir import ArrayType, Atom, Program, Var, interned
from backsweep.primitives import control as c
from backsweep.primitives import shape as sh
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import active_trace, at_user_line, new_trace, trace_error


def scan(
    step: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    *,
    checkpointing: Checkpointing | None = None,
) -> tuple[Any, Any]:
    """Apply a step again and again, as `jax.lax.scan`.

    Parameters
    ----------
    step : callable (carry, x) -> (carry, y)
        One time step in plain NumPy. Captured arrays are found and differentiated.
    init : pytree of array_like
        The first carry.
    xs : pytree of array_like, optional
        Step n gets the n-th entry along the first axis of each leaf.
    length : int, optional
        Number of steps; needed where there are no xs.
    checkpointing : Checkpointing, optional
        How the reverse sweep gets its states. Default: half of the memory that the job may
        use now, no disk. Leave it out for a scan inside a step: all states of an inner scan are
        kept, for one outer step at a time; with a request of its own Python runs the outer scan.

    Returns
    -------
    carry : pytree
        The last carry.
    ys : pytree of ndarray, shape (length, ...)
        What the steps recorded.

    Raises
    ------
    ShapeError
        If the carry changes its structure, a shape or a dtype, or lengths differ.
    TraceError
        If the step cannot be traced.
    """
    if not callable(step):
        raise TraceError(
            f"scan: the step is a {type(step).__name__}, which cannot be called; an object with "
            f"advance and reverse goes into external_step first{at_user_line()}"
        )
    if active_trace() is None:
        return run_traced(
            lambda i, x: scan(step, i, x, length, checkpointing=checkpointing), init, xs
        )
    return _traced_scan(step, init, xs, length, checkpointing)


def _length(xs: Sequence[Any], length: int | None) -> int:
    if any(np.ndim(x) == 0 for x in xs):
        raise ShapeError(f"scan: xs must have a leading axis, a scalar was given{at_user_line()}")
    found = {int(np.shape(x)[0]) for x in xs} | ({int(length)} if length is not None else set())
    if len(found) != 1:
        what = f"the lengths {sorted(found)} differ" if found else "give xs or length"
        raise ShapeError(f"scan: {what}{at_user_line()}")
    return found.pop()


def _traced_scan(
    step: Callable[..., Any], init: Any, xs: Any, length: int | None, checkpointing: Any
) -> tuple[Any, Any]:
    trace = active_trace()
    assert trace is not None
    x_leaves, x_tree = flatten(xs)
    n = _length(x_leaves, length)
    init_leaves, carry_tree = flatten(init)
    x_atoms = [lift(x) for x in x_leaves]
    x_types = [ArrayType(a.type.shape[1:], a.type.dtype) for a in x_atoms]  # type: ignore
    carry_types = [type_of(leaf) for leaf in init_leaves]
    traced = _trace_step(step, carry_types, x_types, carry_tree, x_tree)
    strong = _strengthened(carry_types, traced)
    if strong != carry_types:
        carry_types = strong
        traced = _trace_step(step, carry_types, x_types, carry_tree, x_tree)
    program, n_carry = traced.program, len(carry_types)
    _check_carry(carry_tree, carry_types, traced)
    init_atoms = [
        _initial(trace, leaf, t) for leaf, t in zip(init_leaves, carry_types, strict=True)
    ]
    y_tree = traced.out_tree.ys  # type: ignore[attr-defined]
    carry, ys = _emit(trace, traced, program, init_atoms, x_atoms, n_carry, n, checkpointing)
    return carry_tree.build([wrap(a) for a in carry]), y_tree.build([wrap(a) for a in ys])


def _initial(trace: Any, leaf: Any, type: ArrayType) -> Atom:
    from backsweep.primitives.elementwise import convert

    atom = materialized(trace, lift(leaf))
    return convert(trace.builder, atom, type.dtype)


class _StepTrees:
    """Structure of what a step returned."""

    def __init__(self, carry: Tree, ys: Tree, n_carry: int) -> None:
        self.carry, self.ys, self.n_carry = carry, ys, n_carry


def _trace_step(
    step: Any, carry_types: Any, x_types: Any, carry_tree: Tree, x_tree: Tree
) -> Traced:
    with new_trace(step) as trace:
        names = argument_names(step, 0, len(carry_types)) + argument_names(step, 1, len(x_types))
        variables = [
            trace.builder.input(t, name)
            for t, name in zip((*carry_types, *x_types), names, strict=True)
        ]
        n = len(carry_types)
        carry = carry_tree.build([_named(v) for v in variables[:n]])
        x = x_tree.build([_named(v) for v in variables[n:]])
        result = step(carry, x)
        if not isinstance(result, tuple) or len(result) != 2:
            raise trace_error(
                f"the step must return (carry, y), it returned {type(result).__name__}; "
                "return None for y where nothing is recorded"
            )
        carry_leaves, out_tree = flatten(result[0])
        y_leaves, y_tree = flatten(result[1])
        outputs = [materialized(trace, lift(leaf)) for leaf in (*carry_leaves, *y_leaves)]
    trees: Any = _StepTrees(out_tree, y_tree, len(carry_leaves))
    return finish(trace, variables, outputs, trees, "step")


def _named(var: Var) -> TracedArray:
    return wrap(var)


def _strengthened(types: list[ArrayType], traced: Traced) -> list[ArrayType]:
    """Weak carries take the dtype that the step gives them."""
    outs = traced.program.out_types
    if traced.out_tree.n_carry != len(types):  # type: ignore[attr-defined]
        return types
    return [
        ArrayType(t.shape, o.dtype) if t.weak and o.dtype != t.dtype else t  # type: ignore
        for t, o in zip(types, outs, strict=False)
    ]


def _check_carry(tree: Tree, types: list[ArrayType], traced: Traced) -> None:
    trees: Any = traced.out_tree
    if not tree.same_as(trees.carry):
        raise ShapeError(
            f"scan: the carry changes its structure: it came as {tree.spec} and the step "
            f"returns {trees.carry.spec}{at_user_line()}"
        )
    for path, given, out in zip(tree.paths(), types, traced.program.out_types, strict=False):
        if (given.shape, given.dtype) != (out.shape, out.dtype):  # type: ignore[union-attr]
            is_cast = given.shape == out.shape
            hint = f"; convert with .astype({given.dtype})" if is_cast else ""
            raise ShapeError(
                f"scan: the carry{path} came as {given} and the step returns {out}: shapes and "
                f"dtypes must stay{hint}{at_user_line()}"
            )


def _emit(
    trace: Any,
    traced: Traced,
    program: Program,
    init: list[Atom],
    xs: list[Atom],
    n_carry: int,
    length: int,
    checkpointing: Any,
) -> tuple[list[Atom], list[Atom]]:
    """Emit the equation; carries that never change become constants."""
    a = traced.n_captured
    carry_vars = program.inputs[a : a + n_carry]
    stays = [program.outputs[k] is v for k, v in enumerate(carry_vars)]
    moving = [k for k, s in enumerate(stays) if not s]
    fixed = [k for k, s in enumerate(stays) if s]
    inputs = (
        *program.inputs[:a],
        *(carry_vars[k] for k in fixed),
        *(carry_vars[k] for k in moving),
        *program.inputs[a + n_carry :],
    )
    outputs = (*(program.outputs[k] for k in moving), *program.outputs[n_carry:])
    step = interned(Program(inputs, program.equations, outputs, "step"))
    consts = [*traced.captured, *(init[k] for k in fixed)]
    results = trace.emit(
        c.scan,
        *consts,
        *(init[k] for k in moving),
        *xs,
        step=step,
        n_consts=len(consts),
        n_carry=len(moving),
        length=length,
        checkpointing=checkpointing,
    )
    final = dict(zip(moving, results[: len(moving)], strict=True))
    carry = [final.get(k, init[k]) for k in range(n_carry)]
    return carry, list(results[len(moving) :])


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function into fused kernels.

    It is traced at each call; code of equal structure is compiled once. Inside a scan there
    is no need for it: steps are always compiled.

    Parameters
    ----------
    function : callable
        Plain NumPy code on arrays in containers.
    """

    def compiled(*args: Any) -> Any:
        if active_trace() is None:
            return run_traced(compiled, *args)
        leaves, tree = flatten(args)
        out: list[Tree] = []

        def step(carry: Any, x: Any) -> Any:
            result_leaves, result_tree = flatten(function(*tree.build(leaves)))
            out.append(result_tree)
            return (), result_leaves

        _, ys = _traced_scan(step, (), None, 1, None)
        trace = active_trace()
        assert trace is not None
        values = [trace.emit(sh.reshape, y._read(), shape=y.shape[1:]) for y in ys]
        return out[-1].build([wrap(v) for v in values])

    return compiled
