"""Run a function by NumPy and as a traced program, and compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Program, evaluate, verify
from backsweep.passes import vjp_program
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import new_trace


def trace(
    function: Callable[..., Any], arguments: Sequence[np.ndarray]
) -> tuple[Program, list[np.ndarray]]:
    """The program of a function of arrays, and the plain arrays that it captured."""
    with new_trace() as t:
        handles = [
            wrap(t.builder.input(ArrayType(a.shape, a.dtype), f"u{k}"))
            for k, a in enumerate(arguments)
        ]
        results = function(*handles)
        results = results if isinstance(results, (tuple, list)) else (results,)
        program = t.builder.build([lift(r) for r in results])
    return verify(program), [array for _, array in t.captured.values()]


def run_traced(function: Callable[..., Any], arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The function's results through trace and reference interpreter."""
    program, captured = trace(function, arguments)
    return [np.asarray(v) for v in evaluate(program, [*arguments, *captured])]


def run_numpy(function: Callable[..., Any], arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The function's results by NumPy itself, on copies."""
    with np.errstate(all="ignore"):
        results = function(*(np.array(a) for a in arguments))
    results = results if isinstance(results, (tuple, list)) else (results,)
    return [np.array(r) for r in results]


def check(
    function: Callable[..., Any], *arguments: np.ndarray, ulp: float = 4, exact: bool = False
) -> None:
    """NumPy's results and the program's agree in shape, dtype and value."""
    expected = run_numpy(function, arguments)
    actual = run_traced(function, arguments)
    assert len(expected) == len(actual)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape, (a.shape, b.shape)
        assert a.dtype == b.dtype, (a.dtype, b.dtype)
        if exact or b.dtype.kind not in "fc":
            np.testing.assert_array_equal(a, b)
        else:
            eps = float(np.finfo(b.dtype).eps)
            finite = b[np.isfinite(b)]
            scale = float(np.max(np.abs(finite), initial=0.0))
            np.testing.assert_allclose(a, b, rtol=ulp * eps, atol=ulp * eps * scale)


def check_derivative(
    function: Callable[..., Any],
    *arguments: np.ndarray,
    step: float = 1e-5,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> None:
    """The adjoint program against central differences, in a random direction."""
    program, captured = trace(function, arguments)
    n = len(arguments)
    is_active = [t.is_inexact for t in program.out_types]
    rng = np.random.default_rng(seed)
    y_bar = [
        _normal(rng, t) for t, active in zip(program.out_types, is_active, strict=True) if active
    ]
    x_dot = [_normal(rng, t) for t in program.in_types[:n]]
    adjoint = vjp_program(program, [True] * n + [False] * len(captured), is_active)
    x_bar = evaluate(verify(adjoint), [*arguments, *captured, *y_bar])

    def outputs(shift: float) -> list[Any]:
        moved = [a + shift * d for a, d in zip(arguments, x_dot, strict=True)]
        values = evaluate(program, [*moved, *captured])
        return [y for y, active in zip(values, is_active, strict=True) if active]

    slopes = [(b - a) / (2 * step) for a, b in zip(outputs(-step), outputs(step), strict=True)]
    forward = [_real_dot(c, s) for c, s in zip(y_bar, slopes, strict=True)]
    reverse = sum(_real_dot(b, d) for b, d in zip(x_bar, x_dot, strict=True))
    scale = 1.0 + sum(map(abs, forward))
    assert abs(reverse - sum(forward)) <= tolerance * scale, (reverse, sum(forward))


def _normal(rng: np.random.Generator, type: Any) -> np.ndarray:
    values = rng.standard_normal(type.shape)
    if type.dtype.kind == "c":
        values = values + 1j * rng.standard_normal(type.shape)
    return np.asarray(values, type.dtype)


def _real_dot(a: Any, b: Any) -> float:
    return float(np.real(np.sum(np.conj(a) * b)))


__all__ = ["TracedArray", "check", "check_derivative", "run_numpy", "run_traced", "trace"]
