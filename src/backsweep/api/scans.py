"""`scan`: a time loop that is traced once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backsweep.api.steps import check_carry, divided, initial, strengthened, trace_step
from backsweep.api.tracer import run_traced, type_of
from backsweep.api.tree import Tree, flatten
from backsweep.errors import ShapeError, TraceError
from backsweep.ir import ArrayType
from backsweep.primitives import control as c
from backsweep.primitives import shape as sh
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import active_trace, at_user_line


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
    traced = trace_step(step, carry_types, x_types, carry_tree, x_tree)
    strong = strengthened(carry_types, traced)
    if strong != carry_types:
        carry_types = strong
        traced = trace_step(step, carry_types, x_types, carry_tree, x_tree)
    check_carry("scan", carry_tree, carry_types, traced)
    parts = divided(traced, initial(trace, init_leaves, carry_types))
    results = trace.emit(
        c.scan,
        *parts.consts,
        *parts.init,
        *x_atoms,
        step=parts.step,
        n_consts=len(parts.consts),
        n_carry=len(parts.init),
        length=n,
        checkpointing=checkpointing,
    )
    carry, ys = parts.whole_carry(results), results[len(parts.init) :]
    y_tree = traced.out_tree.ys  # type: ignore[attr-defined]
    return carry_tree.build([wrap(a) for a in carry]), y_tree.build([wrap(a) for a in ys])


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
