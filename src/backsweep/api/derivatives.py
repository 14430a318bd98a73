"""grad, value_and_grad, vjp, jvp, linearize, hvp: with JAX's names and signatures.

Derivatives are those of the real inner product <a, b> = Re sum conj(a) b: the gradient of
a real loss with respect to a complex array is dL/dx + i dL/dy, the direction of steepest
ascent (PyTorch's convention; JAX returns its conjugate).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backsweep.api.calls import (
    Argnums,
    Call,
    matching,
    shaped_like_arguments,
    trace_call,
    unwrapped,
)
from backsweep.api.decomposed import run_in_blocks
from backsweep.api.placed import Placements, check_replicated, with_placements
from backsweep.api.pullback import Pullback
from backsweep.api.tracer import apply_program
from backsweep.codegen import statistics
from backsweep.comm import BlockedArray, Decomposition
from backsweep.errors import DifferentiationError
from backsweep.ir import Builder, Program, verify
from backsweep.passes import check_forward_mode, jvp_program, simplify, transpose
from backsweep.passes import linearize as linearize_program
from backsweep.passes.gradient import cotangent_program, value_and_grad_program
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.fingerprint import fingerprint
from backsweep.runtime.report import Report
from backsweep.trace.tracing import active_trace


def check_loss(program: Program) -> None:
    if not program.outputs:
        raise DifferentiationError("the function to differentiate returned nothing")
    type: Any = program.out_types[0]
    if type.shape != () or type.dtype.kind != "f":
        raise DifferentiationError(
            f"the function to differentiate returned {type}; grad needs one real scalar: "
            "sum it, or take abs()**2 of complex values; vjp handles other outputs"
        )
    check_replicated(program)


def value_and_grad(
    function: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    has_report: bool = False,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> Callable[..., Any]:
    """A function that returns value and gradient.

    Parameters
    ----------
    function : callable
        Returns a real scalar, or with `has_aux` a pair of it and anything else.
    argnums : int or sequence of int
        Which arguments to differentiate.
    has_aux : bool
    has_report : bool
        Return a `Report` as third value: what the gradient cost.
    decomposition : Decomposition, optional
        Of the grid on which the arrays of the function are defined: each rank then traces the
        same function on global shapes and computes its own block. Arrays whose last dimensions
        are those of the grid may be a `BlockedArray`, and their gradients are; all other values
        are whole on every rank.
    placement : {"replicated", "varying"} or a sequence of one for each argument, optional
        Needed if the function calls collectives (`comm.halo_exchange`, `comm.allreduce_sum`, ...)
        itself. Each rank then traces it on arrays of its own: "varying", or the same on all ranks:
        "replicated"; so are their gradients.

    Returns
    -------
    callable
        Returns ``(value, gradient)``, with `has_aux` ``((value, aux), gradient)``.

    Raises
    ------
    DifferentiationError
        If the value is no real scalar, or not the same on all ranks, or an argument is not
        floating point.

    Examples
    --------
    >>> value, gradient = value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    >>> gradient
    array([2., 4.])
    """

    def evaluated(*args: Any) -> Any:
        begin = time.perf_counter()
        before = statistics.copy()
        call = trace_call(function, args, argnums, is_cut=decomposition is not None)
        call = with_placements(call, placement, decomposition)
        out_types = call.traced.program.out_types
        check_loss(call.traced.program)
        program = value_and_grad_program(call.traced.program, call.active)
        report = Report()
        outputs = _applied(program, call.values, decomposition, report)
        n = len(out_types)
        out = call.traced.out_tree.build([unwrapped(v) for v in outputs[:n]])
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise DifferentiationError("has_aux=True: the function must return (value, aux)")
        gradient = shaped_like_arguments(call, outputs[n:], argnums)
        if not has_report:
            return out, gradient
        _complete(report, before, begin, outputs[:1], outputs[n:])
        return out, gradient, report

    return evaluated


def _applied(
    program: Program,
    values: Sequence[Any],
    decomposition: Decomposition | None,
    report: Report | None = None,
) -> list[Any]:
    if decomposition is None:
        return apply_program(program, values, report)
    return run_in_blocks(program, values, decomposition, report)


def _complete(report: Report, before: Any, begin: float, value: Any, gradient: Any) -> None:
    report.seconds = time.perf_counter() - begin
    report.n_compilations = statistics.compilations - before.compilations
    report.n_cache_hits = statistics.hits - before.hits
    report.compile_seconds = statistics.seconds - before.seconds
    if active_trace() is None:
        report.value_fingerprint = fingerprint(value)
        report.gradient_fingerprint = fingerprint(gradient)


def grad(
    function: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> Callable[..., Any]:
    """A function that returns the gradient; with `has_aux` ``(gradient, aux)``.

    See `value_and_grad`.
    """
    both = value_and_grad(
        function, argnums, has_aux, decomposition=decomposition, placement=placement
    )

    def evaluated(*args: Any) -> Any:
        out, gradient = both(*args)
        return (gradient, out[1]) if has_aux else gradient

    return evaluated


def jvp(
    function: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> tuple[Any, Any]:
    """Value and directional derivative, in one forward sweep.

    Parameters
    ----------
    function : callable
    primals, tangents : tuple
        Arguments and directions, of the same structure.
    decomposition, placement : optional
        As for `value_and_grad`.

    Returns
    -------
    value, tangent : pytree
    """
    argnums = tuple(range(len(primals)))
    call = trace_call(function, primals, argnums, is_cut=decomposition is not None)
    call = with_placements(call, placement, decomposition)
    dots = matching(call, tangents)
    keep = [t.is_inexact for t in call.traced.program.out_types]
    program, _ = jvp_program(call.traced.program, call.active, keep=keep)
    program = check_forward_mode(verify(simplify(program)))
    results = _applied(program, [*call.values, *dots], decomposition)
    outputs = [unwrapped(v) for v in results]
    return _paired(call, outputs, keep)


def _paired(call: Call, outputs: list[Any], keep: list[bool]) -> tuple[Any, Any]:
    n = len(keep)
    dots = iter(outputs[n:])
    tangents = [
        next(dots) if k else np.zeros(np.shape(v)) for k, v in zip(keep, outputs, strict=False)
    ]
    return call.traced.out_tree.build(outputs[:n]), call.traced.out_tree.build(tangents)


def _trace_outside(
    function: Callable[..., Any], primals: Sequence[Any], what: str, *, is_cut: bool = False
) -> Call:
    if active_trace() is not None:
        raise DifferentiationError(
            f"{what} inside a traced function is not supported: use grad, value_and_grad or jvp"
        )
    return trace_call(function, primals, tuple(range(len(primals))), is_cut=is_cut)


def _linearized(call: Call) -> Any:
    parts = linearize_program(call.traced.program, call.active)
    report = Report()
    values = [np.array(v) for v in call.values]  # later changes must not reach the pullback
    results = run_program(verify(parts.primal), values, report)
    outputs = [unwrapped(np.array(v)) for v in results[: parts.n_outputs]]
    residuals = list(results[parts.n_outputs :])
    return parts, call.traced.out_tree.build(outputs), residuals, report


def vjp(
    function: Callable[..., Any],
    *primals: Any,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> tuple[Any, Pullback]:
    """Value and pullback.

    Parameters
    ----------
    function : callable
    *primals : pytree of array_like
        Copied, as captured arrays are: changing them later does not change the pullback.
    decomposition : Decomposition, optional
        As for `value_and_grad`. Each call of the pullback then runs forward again.
    placement : optional
        As for `value_and_grad`. Cotangents of replicated values are replicated, too.

    Returns
    -------
    value : pytree
    pullback : Pullback
        Takes a cotangent of the value's structure, returns a tuple of cotangents.
    """
    call = _trace_outside(function, primals, "vjp", is_cut=decomposition is not None)
    call = with_placements(call, placement, decomposition)
    if decomposition is not None:
        return _vjp_in_blocks(call, decomposition, tuple(range(len(primals))))
    parts, value, residuals, report = _linearized(call)
    out_types = call.traced.program.out_types
    given = [t.is_inexact for t in out_types]
    wanted = [g for g, a in zip(given, parts.active_out, strict=True) if a]
    program = verify(simplify(transpose(parts.tangent, parts.n_residuals, wanted)))
    program = _with_all_cotangents(program, parts, given, out_types)
    argnums = tuple(range(len(primals)))

    def build(bars: Any) -> Any:
        return shaped_like_arguments(call, bars, argnums)

    return value, Pullback(program, residuals, out_types, build, report)


def _vjp_in_blocks(
    call: Call, decomposition: Decomposition, argnums: Argnums
) -> tuple[Any, Pullback]:
    program, values = call.traced.program, [_kept(v) for v in call.values]
    outputs = [unwrapped(v) for v in run_in_blocks(program, values, decomposition)]

    def build(bars: Any) -> Any:
        return shaped_like_arguments(call, bars, argnums)

    def run(program: Program, arguments: list[Any], report: Report) -> list[Any]:
        return run_in_blocks(program, arguments, decomposition, report)

    # Nothing is held but the arguments: no trajectory outlives a program that is cut.
    back = cotangent_program(program, call.active)
    pullback = Pullback(back, values, program.out_types, build, Report(), run)
    return call.traced.out_tree.build(outputs), pullback


def _kept(value: Any) -> Any:
    return value if isinstance(value, BlockedArray) else np.array(value)


def _with_all_cotangents(program: Program, parts: Any, given: list[bool], types: Any) -> Program:
    """Accept (and ignore) cotangents of outputs that do not depend on the inputs."""
    b = Builder()
    residuals = [b.input(v.type) for v in program.inputs[: parts.n_residuals]]
    cts = [b.input(t) if g else None for t, g in zip(types, given, strict=True)]
    used = [ct for ct, a in zip(cts, parts.active_out, strict=True) if a and ct is not None]
    outputs = b.inline(program, (*residuals, *used))
    return b.build(outputs, program.name)


def linearize(
    function: Callable[..., Any], *primals: Any, placement: Placements = None
) -> tuple[Any, Callable[..., Any]]:
    """Value and the linear map from tangents of the inputs to tangents of the value.

    A scan's tangent is run again from its initial state at each call. `placement` is as for
    `value_and_grad`.
    """
    call = with_placements(_trace_outside(function, primals, "linearize"), placement)
    # The map is the forward mode: refuse now what could not be run later.
    check_forward_mode(simplify(jvp_program(call.traced.program, call.active)[0]))
    parts, value, residuals, report = _linearized(call)
    out_types: Any = call.traced.program.out_types

    def pushforward(*tangents: Any) -> Any:
        dots = matching(call, tangents)
        arguments = [*residuals, *dots]
        results = iter(unaliased(run_program(parts.tangent, arguments, report), arguments))
        full = [
            unwrapped(next(results)) if active else np.zeros(t.shape, t.dtype)
            for active, t in zip(parts.active_out, out_types, strict=True)
        ]
        return call.traced.out_tree.build(full)

    return value, pushforward


def hvp(
    function: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    decomposition: Decomposition | None = None,
    placement: Placements = None,
) -> tuple[Any, Any]:
    """Gradient and product of the Hessian with a direction, forward over reverse.

    Parameters
    ----------
    function : callable
        Returns a real scalar.
    primals, tangents : tuple
        Arguments and directions. The Hessian is that with respect to all of them.
    decomposition, placement : optional
        As for `value_and_grad`.

    Returns
    -------
    gradient, product : tuple of pytrees
        One entry for each argument; alone where there is one argument.
    """
    argnums: Argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    if placement is None:
        return jvp(grad(function, argnums), primals, tangents, decomposition=decomposition)
    call = trace_call(function, primals, tuple(range(len(primals))))
    call = with_placements(call, placement, decomposition)
    check_loss(call.traced.program)
    program = value_and_grad_program(call.traced.program, call.active)
    gradient = program.outputs[len(call.traced.program.outputs) :]
    program = Program(program.inputs, program.equations, gradient, program.name)
    program, _ = jvp_program(program, call.active, keep=[True] * len(gradient))
    program = check_forward_mode(verify(simplify(program)))
    results = apply_program(program, [*call.values, *matching(call, tangents)])
    n = len(gradient)
    return (
        shaped_like_arguments(call, results[:n], argnums),
        shaped_like_arguments(call, results[n:], argnums),
    )
