"""A step with a given adjoint is split as one whose adjoint is derived; what is handed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import serial
from backsweep.ir import ArrayType, Builder, Program, Var, evaluate
from backsweep.passes import vjp_program
from backsweep.passes.delay import delay
from backsweep.passes.residuals import plan_residuals, split_of_pair, split_of_step
from backsweep.primitives import elementwise as ew
from backsweep.primitives import index as ix
from backsweep.primitives.communication import allreduce_sum
from backsweep.primitives.control import scan_shape
from backsweep.primitives.shape import broadcast, sum_
from backsweep.runtime import plan as plan_module

N = 9
STORE_ALL = bs.Checkpointing(schedule="store_all")


def wave(c: Any, source: Any) -> Any:
    def step(carry: Any, s: Any) -> Any:
        u, before = carry
        after = 2 * u - before
        after[1:-1] += c[1:-1] * (u[2:] + u[:-2] - 2 * u[1:-1])
        after[3] += s
        return (after, u), after[5]

    start = (np.zeros(N), np.zeros(N))
    return np.sum(bs.scan(step, start, source, checkpointing=STORE_ALL)[1] ** 2)


def folded(c: Any, source: Any) -> Any:
    def step(u: Any, s: Any) -> Any:
        u = np.where(u > 0, u * np.exp(-c * u), np.sin(c * u)) + s
        return u, u[2]

    start = np.linspace(-1, 1, N)
    return np.sum(bs.scan(step, start, source, checkpointing=STORE_ALL)[1] ** 2)


def params_of(loss: Any) -> Any:
    """Of the scan of a gradient."""
    found: list[Any] = []
    original = plan_module.plan_scan

    def spy(params: Any, *more: Any) -> Any:
        found.append(params)
        return original(params, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "plan_scan", spy)
        bs.value_and_grad(loss, (0, 1))(np.linspace(0.1, 0.3, N), np.ones(4))
    return found[0]


def numbers(inputs: tuple[Var, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [np.asarray(rng.standard_normal(v.type.shape)).astype(v.type.dtype) for v in inputs]  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", [wave, folded])
def test_a_given_adjoint_is_split_as_a_derived_one(loss: Any) -> None:
    params = params_of(loss)
    step, shape = params["step"], scan_shape(params)
    derived = split_of_step(step, params["active_in"])
    adjoint = vjp_program(step, params["active_in"], derived.active_out)
    given = split_of_pair(step, adjoint, derived.active_out)
    state_bytes = 2 * 8 * N
    plans = [
        plan_residuals(p, shape.n_consts, shape.n_carry, state_bytes) for p in (derived, given)
    ]
    first, second = plans
    assert first is not None and second is not None
    assert sorted(t.nbytes for t in first.types) == sorted(t.nbytes for t in second.types)
    inputs, bars = step.inputs, adjoint.inputs[len(step.inputs) :]
    values = numbers((*inputs, *bars))
    expected = evaluate(adjoint, values)
    for plan in (first, second):
        kept = evaluate(plan.forward, values[: len(inputs)])[len(step.outputs) :]
        a, b = shape.n_consts, shape.n_consts + shape.n_carry
        rest = [*values[:a], *values[b : len(inputs)], *kept, *values[len(inputs) :]]
        for x, y in zip(evaluate(plan.reverse, rest), expected, strict=True):
            np.testing.assert_array_equal(x, y)


def handing(start: int) -> Program:
    """Reverse step of two bars: the new second one is a part of the first, times a constant."""
    b = Builder()
    field, part = ArrayType((6,), np.dtype(float)), ArrayType((4,), np.dtype(float))
    c, first, second = b.input(part, "c"), b.input(field), b.input(field)
    inside = b(ix.slice_, first, starts=(1,), steps=(1,), sizes=(4,))
    new = b(ix.pad, b(ew.mul, c, inside), shape=(6,), starts=(start,), steps=(1,))
    return b.build([b(ew.add, first, second), new])


def test_a_part_in_its_place_is_handed_on() -> None:
    """Its ghosts stay zero; one that is moved, or that others fetch, is stored."""
    found = delay(handing(1), 1, 1, 2, 0)
    assert found.follows == {1: 0}
    c, old = np.arange(4.0), np.arange(6.0)
    (value,) = evaluate(found.recover[1], [c, old])
    np.testing.assert_array_equal(value, [0, 0, 2, 6, 12, 0])
    assert delay(handing(2), 1, 1, 2, 0).follows == {}
    assert delay(handing(1), 1, 1, 2, 0, stored=(1,)).follows == {}


def test_what_all_ranks_must_call_is_not_handed_on() -> None:
    """Of a sum over ranks in the step: one rank may begin with zero cotangents, another not."""
    b = Builder()
    field = ArrayType((6,), np.dtype(float))
    c, first, second = b.input(field, "c"), b.input(field), b.input(field)
    total = b(allreduce_sum, b(sum_, c, axes=(0,)), comm=serial())
    new = b(ew.mul, b(broadcast, total, shape=(6,), dims=()), first)
    program = b.build([b(ew.add, first, second), new])
    assert delay(program, 1, 1, 2, 0).follows == {}
