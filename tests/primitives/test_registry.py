"""Every primitive in the registry: types, derivatives, transposes, compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from declared_examples import CALLS_LIBM, CALLS_LIBM_IF_COMPLEX, EXAMPLES, IN_ENGINE, Example

from backsweep.ir import ArrayType, Builder, Program, evaluate, verify
from backsweep.passes import jvp_program, vjp_program
from backsweep.primitives import REGISTRY
from backsweep.primitives.control import ScanShape
from backsweep.runtime.compiled import compile_forward
from backsweep.runtime.scan import run_scan

every_primitive = pytest.mark.parametrize("name", sorted(EXAMPLES))


def test_every_primitive_has_examples() -> None:
    assert set(EXAMPLES) | IN_ENGINE == set(REGISTRY)
    assert not set(EXAMPLES) & IN_ENGINE
    assert len(EXAMPLES) <= 80  # DESIGN 3; not counting those that hold programs


def _program(name: str, examples: Sequence[Example]) -> Program:
    """All examples side by side."""
    b, outputs = Builder(), []
    for example in examples:
        variables = [b.input(ArrayType(a.shape, a.dtype)) for a in example.args]
        out = b(REGISTRY[name], *variables, **example.params)
        outputs += out if isinstance(out, tuple) else [out]
    return verify(b.build(outputs, name))


def _differentiable(name: str) -> list[Example]:
    return [e for e in EXAMPLES[name] if e.is_smooth]


def _normal(rng: np.random.Generator, like: Any) -> np.ndarray:
    values = rng.standard_normal(like.shape)
    return values + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else values


def _slope(program: Program, example: Example, dots: Sequence[np.ndarray], h: float = 1e-4) -> Any:
    """Central difference of fourth order."""

    def at(shift: float) -> Any:
        supply = iter(dots)
        moved = [a + shift * next(supply) if a.dtype.kind in "fc" else a for a in example.args]
        return evaluate(program, moved)[0]

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def _dot(a: Any, b: Any) -> float:
    return float(sum(np.real(np.vdot(x, y)) for x, y in zip(a, b, strict=True)))


@every_primitive
def test_type_rule_foretells_the_evaluation(name: str) -> None:
    for example in EXAMPLES[name]:
        for e in (example, example.in_single()):
            program = _program(name, [e])
            for type, value in zip(program.out_types, evaluate(program, e.args), strict=True):
                assert np.shape(value) == type.shape
                assert np.asarray(value).dtype == type.dtype


@every_primitive
def test_evaluation_leaves_its_operands(name: str) -> None:
    for example in EXAMPLES[name]:
        before = [a.tobytes() for a in example.args]
        evaluate(_program(name, [example]), example.args)
        assert before == [a.tobytes() for a in example.args]


@every_primitive
def test_jvp_is_the_central_difference(name: str) -> None:
    rng = np.random.default_rng(7)
    for example in _differentiable(name):
        program = _program(name, [example])
        active = [a.dtype.kind in "fc" for a in example.args]
        dots = [_normal(rng, a) for a, f in zip(example.args, active, strict=True) if f]
        tangent, _ = jvp_program(program, active, keep=[True])
        out, out_dot = evaluate(verify(tangent), [*example.args, *dots])
        np.testing.assert_allclose(out_dot, _slope(program, example, dots), rtol=1e-7, atol=1e-7)
        np.testing.assert_array_equal(out, evaluate(program, example.args)[0])


@every_primitive
def test_transpose_is_the_adjoint_of_the_jvp(name: str) -> None:
    """<y_bar, J x_dot> = <J^T y_bar, x_dot>, for each operand alone and for all together."""
    rng = np.random.default_rng(8)
    for example in _differentiable(name):
        program = _program(name, [example])
        inexact = [k for k, a in enumerate(example.args) if a.dtype.kind in "fc"]
        for chosen in [*([k] for k in inexact), inexact]:
            active = [k in chosen for k in range(len(example.args))]
            dots = [_normal(rng, example.args[k]) for k in chosen]
            tangent, _ = jvp_program(program, active, keep=[True])
            out_dot = evaluate(tangent, [*example.args, *dots])[1]
            out_bar = np.asarray(_normal(rng, program.outputs[0].type), out_dot.dtype)
            adjoint = verify(vjp_program(program, active, [True]))
            bars = evaluate(adjoint, [*example.args, out_bar])
            assert [(b.shape, b.dtype) for b in bars] == [(d.shape, d.dtype) for d in dots]
            left, right = _dot([out_bar], [out_dot]), _dot(bars, dots)
            size = np.linalg.norm(out_bar) * np.linalg.norm(out_dot)
            assert abs(left - right) <= 1e-12 * (size + 1e-3), (left, right)


@every_primitive
def test_compiled_is_evaluated(name: str) -> None:
    """One step of a compiled scan against the reference interpreter."""
    examples = [x for e in EXAMPLES[name] for x in _distinct(e)]
    program = _program(name, examples)
    args = [a for e in examples for a in e.args]
    # Raises what cannot be compiled; `run_scan` would fall back to the interpreter.
    compile_forward(program, ScanShape(len(args), 0, 1), in_place=False)
    params = {"step": program, "n_consts": len(args), "n_carry": 0, "length": 1}
    compiled = run_scan(params, args)
    for k, (a, b) in enumerate(zip(compiled, evaluate(program, args), strict=True)):
        names = CALLS_LIBM | (CALLS_LIBM_IF_COMPLEX if a.dtype.kind == "c" else set())
        _assert_equal(a[0], np.asarray(b), 4 if name in names else 0, f"{name}, example {k}")


def _distinct(example: Example) -> list[Example]:
    single = example.in_single()
    is_same = all(a.dtype == b.dtype for a, b in zip(example.args, single.args, strict=True))
    return [example] if is_same and example.params == single.params else [example, single]


def _assert_equal(a: np.ndarray, b: np.ndarray, ulp: int, what: str) -> None:
    """Bit by bit but for the sign of zeros and NaN's payload, or to some ulp."""
    assert a.shape == b.shape and a.dtype == b.dtype, what
    if a.dtype.kind == "c":
        size = np.max(np.abs(b), initial=0.0)
        if ulp:  # real and imaginary part share the rounding errors of the modulus
            np.testing.assert_allclose(a, b, atol=2 * ulp * np.finfo(a.dtype).eps * size, rtol=0)
            return
        a, b = (np.stack([v.real, v.imag]) for v in (a, b))
    if a.dtype.kind == "f" and ulp:
        finite = np.isfinite(a) & np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite], what)
        np.testing.assert_array_max_ulp(a[finite], b[finite], ulp)
    else:
        np.testing.assert_array_equal(a, b, what)
