"""Random steps with in-place writes and views of views: compiled code is the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import random_steps
from marks import more

import backsweep as bs
import programs
from backsweep.passes import residuals

pytestmark = pytest.mark.filterwarnings("ignore:u.i. .= v with an element named twice")

CASES = [(0, programs.EXACT, "f8"), more(3, programs.EXACT, "f8"), (100, programs.ALL, "f4")]
CASES += [more(101, programs.ALL, "f8"), (200, programs.SMOOTH, "c16")]


def _loss(seed: int, kinds: Any, dtype: Any) -> tuple[Any, list[np.ndarray]]:
    program = random_steps.random_program(seed, tuple(kinds))
    weights = programs.arguments(5, dtype)
    loss = random_steps.make_loss(program, weights, random_steps.SOME)
    return (lambda *init: np.real(loss(*init))), programs.arguments(seed, dtype)


@pytest.mark.parametrize("seed, kinds, dtype", CASES)
def test_compiled_is_interpreted(
    seed: int, kinds: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, args = _loss(seed, kinds, dtype)
    both = bs.value_and_grad(loss, (0, 1, 2), has_report=True)
    value, gradient, report = both(*args)
    assert report.scans[0].executor == "native"
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    expected, reference, report = both(*args)
    assert report.scans[0].executor.startswith("python")
    assert value == expected
    for a, b in zip(gradient, reference, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", [700, *(more(s) for s in (701, 702, 703))])
def test_residuals_are_states(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is kept: here memory is nearly free, so that little is computed again."""
    monkeypatch.setattr(residuals, "KEPT", 1)
    monkeypatch.setattr(residuals, "STATE", 0)
    program = random_steps.random_program(seed, tuple(programs.SMOOTH))
    weights, args = programs.arguments(5, "f8"), programs.arguments(seed, "f8")
    found = []
    for request in (bs.Checkpointing(schedule="store_all"), random_steps.SOME):
        loss = random_steps.make_loss(program, weights, request)
        value, gradient, report = bs.value_and_grad(loss, (0, 1, 2), has_report=True)(*args)
        found.append((value, *gradient))
        is_kept = request is not random_steps.SOME
        assert ("residuals" in report.scans[0].schedule) == is_kept
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(300, 312))
def test_gradients_of_interpreted_steps(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the schedule, against differences; compiles nothing."""
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    loss, args = _loss(seed, programs.SMOOTH, "f8")
    gradient = bs.grad(loss, (0, 1, 2))(*args)
    rng, h = np.random.default_rng(seed), 1e-4
    dots = [rng.standard_normal(a.shape) for a in args]

    def at(shift: float) -> float:
        return float(loss(*(a + shift * d for a, d in zip(args, dots, strict=True))))

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    found = sum(np.vdot(g, d) for g, d in zip(gradient, dots, strict=True))
    assert found == pytest.approx(slope, rel=1e-6, abs=1e-6 * (1 + abs(at(0.0))))
