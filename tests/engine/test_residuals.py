"""Residuals instead of states: what is kept, in how many bytes, and the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest
import simulations

import backsweep as bs
from backsweep.models import Burgers
from backsweep.passes.residuals import ResidualPlan
from backsweep.runtime import plan as plan_module
from backsweep.runtime.report import ScanReport

STORE_ALL = bs.Checkpointing(schedule="store_all")
Loss = Callable[..., Any]


def gradient_of(
    loss: Loss, args: Any, argnums: Any = None
) -> tuple[list[Any], ScanReport, ResidualPlan | None]:
    """Value and gradient, and what its scan kept."""
    found: list[ResidualPlan | None] = []
    original = plan_module.plan_scan

    def spy(*arguments: Any) -> Any:
        result = original(*arguments)
        found.append(result.residuals)
        return result

    argnums = tuple(range(len(args))) if argnums is None else argnums
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "plan_scan", spy)
        *results, report = bs.value_and_grad(loss, argnums, has_report=True)(*args)
    assert report.scans[0].executor == "native", report
    return optree.tree_leaves(tuple(results)), report.scans[0], found[0]


def agree(loss: Loss, *args: Any, argnums: Any = None) -> tuple[ScanReport, ResidualPlan | None]:
    """The same bits with and without residuals; returns what was kept where they are allowed."""
    found, report, plan = gradient_of(loss, args, argnums)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "residual_plan", lambda *_: None)
        expected, _, no_plan = gradient_of(loss, args, argnums)
    assert no_plan is None
    for a, b in zip(found, expected, strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_array_equal(a, b, strict=True)
    assert any(np.any(g != 0) for g in found[1:])
    return report, plan


def scanned(step: Any, init: Any, xs: Any = None, length: int | None = 6) -> Any:
    return bs.scan(step, init, xs, length=length, checkpointing=STORE_ALL)[0]


U, W = np.cos(np.arange(40.0)), 1.5 + np.sin(np.arange(40.0))


@pytest.mark.parametrize("name", sorted(simulations.PROBLEMS))
def test_simulations(name: str) -> None:
    problem = simulations.PROBLEMS[name]()
    _, plan = agree(problem.make_loss(STORE_ALL), *problem.args)
    assert (plan is None) == (name == "burgers")


def test_rusanov() -> None:
    """abs and maximum: a state is smaller than its residuals."""
    model = Burgers(shape=(24,), spacing=1 / 24, dt=1e-3, n_steps=20)
    _, plan = agree(
        lambda u, nu: np.sum(model.simulate(u, nu, STORE_ALL) ** 2), U[:24], np.array(0.01)
    )
    assert plan is None


def test_spins() -> None:
    """Dear functions of constants, cheap ones of the carry: states."""

    def loss(rf: Any, position: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            mx, my, mz = carry
            angle = np.sqrt(x * x + position * position)
            c, s = np.cos(angle), np.sin(angle) / angle
            return (c * mx + s * my, c * my - s * mx, np.exp(-x * position) * mz), np.sum(mx)

        return sum(np.sum(m) for m in scanned(step, (U, 0 * U, W), rf, None))

    _, plan = agree(loss, 0.1 + 0.01 * np.arange(7.0), W)
    assert plan is None


def test_the_value_of_a_dear_function() -> None:
    """exp is its own derivative: the forward step has it."""

    def loss(u: Any) -> Any:
        return np.sum(scanned(lambda u, _: (0.5 * u + 0.3 * np.exp(-u), None), u))

    _, plan = agree(loss, U)
    assert plan is not None and len(plan.types) == 1
    assert "exp" not in str(plan.reverse)


def test_the_derivative_of_a_dear_function() -> None:
    """Somebody must compute the cosine once, and the state takes no more bytes."""

    def loss(u: Any) -> Any:
        return np.sum(scanned(lambda u, _: (0.5 * u + 0.3 * np.sin(u), None), u))

    _, plan = agree(loss, U)
    assert plan is None


def mixed_loss(u: Any, w: Any, c: Any) -> Any:
    """Reversing needs u * u and c * (u + u), cheap in u, and the exponential."""

    def step(carry: Any, _: Any) -> Any:
        u, w = carry
        e = np.exp(-w)
        return (0.1 * c * (u * u) + e, 0.9 * w + 0.1 * u * e), None

    return sum(np.sum(a) for a in scanned(step, (u, w)))


def test_a_mix_of_carry_and_values() -> None:
    report, plan = agree(mixed_loss, U, W, W)
    assert plan is not None
    kept = plan.forward.outputs[-len(plan.types) :]
    assert plan.forward.inputs[1] in kept  # u itself
    assert any(a not in plan.forward.inputs for a in kept)
    assert "exp" not in str(plan.reverse)
    assert report.snapshot_bytes_memory == 6 * len(kept) * U.nbytes


def test_a_part_of_the_carry() -> None:
    """A sum over time is no residual, and need not be kept."""

    def loss(u: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, total = carry
            return (u - 0.1 * u * u, total + u), None

        return np.sum(scanned(step, (u, 0 * u))[1] ** 2)

    report, plan = agree(loss, U)
    assert plan is not None
    assert report.snapshot_bytes_memory == 6 * U.nbytes


def test_nothing_is_kept() -> None:
    """A linear step with given coefficients."""

    def loss(u: Any, k: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            return u + k * x * (np.roll(u, 1) - 2 * u + np.roll(u, -1)), u[3]

        xs = 0.1 * np.arange(6.0)
        u, ys = bs.scan(step, u, xs, checkpointing=STORE_ALL)
        return np.sum(u**2) + np.sum(ys**3)

    report, plan = agree(loss, U, W, argnums=(0,))
    assert plan is not None and plan.types == ()
    assert report.snapshot_bytes_memory == 0


def test_cotangents_that_end_in_the_step() -> None:
    """A carry that the step replaces has a cotangent, which the step does not read."""

    def loss(u: Any, w: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, w = carry
            return (u * u - 0.2 * u + w, np.zeros_like(w)), u[1]

        (u, w), ys = bs.scan(step, (u, w), length=4, checkpointing=STORE_ALL)
        return np.sum(u) + np.sum(w * u) + np.sum(ys**2)

    _, plan = agree(loss, 0.5 * U, W)
    assert plan is not None


def test_masks() -> None:
    """Where only the branch matters, one byte stands for eight."""

    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return np.where(u > 0.2, 0.9 * u, -0.5 * u) + 0.1 * np.roll(u, 1), None

        return np.sum(scanned(step, u) ** 2)

    report, plan = agree(loss, U)
    assert plan is not None
    assert [t.dtype for t in plan.types] == [np.dtype(bool)]
    assert report.snapshot_bytes_memory == 6 * 64


def test_integers_and_complex_numbers() -> None:
    def loss(z: Any, table: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            z, k, n = carry
            e = np.exp(1j * table[n] * np.abs(z))
            return (0.9 * z * e + x, (k * 5 + 1) % 7, (n + 1) % 4), np.abs(z[k])

        k = np.arange(5) % 7
        carry, ys = bs.scan(step, (z, k, np.array(0)), 0.1 * U[:9], checkpointing=STORE_ALL)
        return np.sum(np.abs(carry[0]) ** 2) + np.sum(ys)

    z = (U + 1j * W)[:12]
    agree(loss, z, W[:4])


def wide_loss(checkpointing: Any) -> Loss:
    """Residuals of four times the state's bytes, which save a product with a matrix."""
    weights = np.random.default_rng(5).standard_normal((64, 16))

    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return 0.9 * u + 0.01 * (np.tanh(weights @ u) @ weights), None

        return np.sum(bs.scan(step, u, length=50, checkpointing=checkpointing)[0] ** 2)

    return loss


@pytest.mark.parametrize("schedule", ["auto", "store_all"])
def test_no_more_bytes_than_the_budget(schedule: str) -> None:
    u, states = U[:16], 51 * 128
    expected = gradient_of(wide_loss(bs.Checkpointing(snapshots=4)), (u,))[0]
    for memory, is_wide in ((states, False), (3 * states, False), (4 * states, True)):
        request = bs.Checkpointing(schedule=schedule, memory=memory)
        found, report, plan = gradient_of(wide_loss(request), (u,))
        assert (plan is not None) == is_wide
        assert report.snapshot_bytes_memory == (50 * 512 if is_wide else states) <= memory
        assert all(map(np.array_equal, found, expected))


def test_no_more_bytes_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a budget states may take what they need, residuals what can be spared."""
    monkeypatch.setattr(bs.Checkpointing, "memory_budget", lambda self: 1000)
    _, report, plan = gradient_of(wide_loss(STORE_ALL), (U[:16],))
    assert plan is None and report.snapshot_bytes_memory == 51 * 128


def kept_text() -> str:
    """The two programs of the mix, as text."""
    plan = gradient_of(mixed_loss, (U, W, W))[2]
    assert plan is not None
    return f"{plan.forward}\n{plan.reverse}"


def test_no_order_of_hashing_matters() -> None:
    found = set()
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, __file__], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout)
    assert found == {kept_text()}


if __name__ == "__main__":
    sys.stdout.write(kept_text())
