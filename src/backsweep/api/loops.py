"""`while_loop`, whose number of steps is found on the way, and `fori_loop`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.api.steps import Divided, check_carry, divided, initial, strengthened, trace_step
from backsweep.api.tracer import Traced, run_traced, type_of
from backsweep.api.tree import flatten
from backsweep.errors import ShapeError, TraceError
from backsweep.ir import Atom, Program, Var, interned
from backsweep.primitives import control as c
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.trace.array import wrap
from backsweep.trace.tracing import active_trace, at_user_line


def while_loop(
    cond: Callable[[Any], Any],
    step: Callable[[Any], Any],
    init: Any,
    *,
    checkpointing: Checkpointing | None = None,
    max_steps: int | None = None,
) -> Any:
    r"""Apply a step as long as a condition holds, as `jax.lax.while_loop`.

    Both are traced once; the number of steps may depend on everything, the differentiated values
    included. Forward and reverse derivatives exist, to any order of forward over reverse.

    Parameters
    ----------
    cond : callable (carry) -> bool scalar
        Asked before each step. Captured arrays are read; no derivative flows through it.
    step : callable (carry) -> carry
        One step in plain NumPy. Captured arrays are found and differentiated.
    init : pytree of array_like
        The first carry.
    checkpointing : Checkpointing, optional
        How the reverse sweep gets its states: `memory` or `snapshots`, with the schedule "auto"
        or "online", which are the same here. Default: half of the memory that the job may use
        now, of which at most 64 snapshots are taken.
    max_steps : int, optional
        More steps are an error: protects from loops that do not end.

    Returns
    -------
    carry : pytree
        The first carry for which the condition fails; `init` where it never holds.

    Raises
    ------
    ShapeError
        If the carry changes its structure, a shape or a dtype, or the condition is not one bool.
    LoopError
        If the condition still holds after `max_steps` steps.
    ScheduleError
        If the reverse sweep is to use a disk, or a schedule that must know the number of steps.
    TraceError
        If step or condition cannot be traced.

    Notes
    -----
    The derivative is that of the steps that were made: it does not see that another parameter
    would have led to another number of them. Where a loop runs until an error is small, that is
    the derivative of the last iterate, not of the limit.

    With s snapshots, n steps take as many advances as if n had been known, for all
    :math:`n \le (s + 1)(s + 2) / 2`, and at most a few percent more beyond
    (`schedule.Online`). The compiled sweep tests the condition after each step and halts: no step
    is made in vain. A loop inside the step of a scan or of another loop works; the outer one is
    run by Python then.

    References
    ----------
    Wang, Moin & Iaccarino 2009, SIAM J. Sci. Comput. 31(4), 2549-2567, doi:10.1137/080727890.
    Stumm & Walther 2010, SIAM J. Sci. Comput. 32(2), 836-854, doi:10.1137/080742439.

    Examples
    --------
    Newton's iteration for a square root, and its derivative:

    >>> def root(a):
    ...     cond = lambda x: abs(x * x - a) > 1e-9
    ...     return while_loop(cond, lambda x: 0.5 * (x + a / x), a, max_steps=50)
    >>> float(root(2.0))
    1.4142135623746899
    >>> import backsweep as bs
    >>> float(bs.grad(root)(2.0))
    0.353553...
    """
    for what, given in (("condition", cond), ("step", step)):
        if not callable(given):
            raise TraceError(
                f"while_loop: the {what} is a {type(given).__name__}, which cannot be called"
                f"{at_user_line()}"
            )
    if active_trace() is None:
        return run_traced(
            lambda i: while_loop(cond, step, i, checkpointing=checkpointing, max_steps=max_steps),
            init,
        )
    return _traced_loop(cond, step, init, checkpointing, max_steps)


def _traced_loop(cond: Any, step: Any, init: Any, checkpointing: Any, max_steps: Any) -> Any:
    trace = active_trace()
    assert trace is not None
    leaves, tree = flatten(init)
    types = [type_of(leaf) for leaf in leaves]
    traced = trace_step(step, types, [], tree, None, _only_carry)
    strong = strengthened(types, traced)
    if strong != types:
        types = strong
        traced = trace_step(step, types, [], tree, None, _only_carry)
    check_carry("while_loop", tree, types, traced)
    parts = divided(traced, initial(trace, leaves, types))
    if not parts.moving:
        raise TraceError(
            "while_loop: the step returns the carry as it came, so that the loop would not end"
            f"{at_user_line()}"
        )
    test = trace_step(cond, types, [], tree, None, lambda result: ((), _checked(result)))
    step_program, cond_program, consts = _joined(parts, test)
    results = trace.emit(
        c.while_loop,
        *consts,
        *parts.init,
        step=step_program,
        cond=cond_program,
        n_consts=len(consts),
        n_carry=len(parts.init),
        checkpointing=checkpointing,
        max_steps=None if max_steps is None else int(max_steps),
    )
    return tree.build([wrap(a) for a in parts.whole_carry(results)])


def _only_carry(result: Any) -> tuple[Any, Any]:
    return result, None


def _checked(result: Any) -> Any:
    leaves, _ = flatten(result)
    types = [type_of(leaf) for leaf in leaves]
    if len(types) != 1 or types[0].shape != () or types[0].dtype != np.dtype(bool):
        given = ", ".join(map(str, types)) if types else type(result).__name__
        raise ShapeError(
            f"while_loop: the condition returned {given}; it must be one bool: compare numbers, "
            f"and reduce arrays with np.any or np.all{at_user_line()}"
        )
    return leaves


def _joined(parts: Divided, test: Traced) -> tuple[Program, Program, list[Atom]]:
    """Step and condition as programs of the same constants and the same carry."""
    step, n, n_fixed = parts.step, len(parts.consts), len(parts.fixed)
    captured = parts.consts[: n - n_fixed]
    known = dict(zip(test.captured, test.program.inputs, strict=False))
    more = [a for a in known if a not in captured]
    carry = test.program.inputs[test.n_captured :]
    seen = (
        *(known.get(a) or Var(a.type) for a in captured),
        *(carry[k] for k in parts.fixed),
        *(known[a] for a in more),
        *(carry[k] for k in parts.moving),
    )
    cond = Program(seen, test.program.equations, test.program.outputs, "cond")
    inputs = (*step.inputs[:n], *(Var(a.type) for a in more), *step.inputs[n:])
    joined = Program(inputs, step.equations, step.outputs, step.name)
    return interned(joined), interned(cond), [*parts.consts, *more]


def fori_loop(
    lower: int,
    upper: int,
    body: Callable[[Any, Any], Any],
    init: Any,
    *,
    checkpointing: Checkpointing | None = None,
) -> Any:
    """Apply ``body(i, carry)`` for i from `lower` to `upper - 1`, as `jax.lax.fori_loop`.

    It is a scan over these numbers.

    Parameters
    ----------
    lower, upper : int
        Known when the function is traced.
    body : callable (i, carry) -> carry
        i is an int64 scalar.
    init : pytree of array_like
    checkpointing : Checkpointing, optional
        As for `scan`.

    Returns
    -------
    carry : pytree

    Examples
    --------
    >>> float(fori_loop(1, 5, lambda i, x: x * i, 1.0))
    24.0
    """
    numbers = np.arange(lower, upper, dtype=np.int64)
    step = lambda carry, i: (body(i, carry), None)  # noqa: E731
    return scan(step, init, numbers, checkpointing=checkpointing)[0]
