"""Loops in steps, in sums and beside scans; loops that go on after a kill."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from external_steps import Burgers, traced_burgers
from loops import U, assert_same, counted_loop, gradient_of, known_scan

import backsweep as bs
from backsweep.runtime import execute
from backsweep.runtime.journal import AbstractJournal, Event, Point


@pytest.fixture(params=["compiled", "python"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    return str(request.param)


def _nested(u: Any) -> Any:
    """A loop in the step of a scan, and one in the step of a loop."""

    def halve(u: Any) -> Any:
        return bs.while_loop(lambda v: np.sum(v * v) > 1, lambda v: 0.5 * np.sin(v), u)

    u, ys = bs.scan(lambda u, x: (x * halve(u), np.sum(u)), u, np.array([1.5, 2.5, 3.5]))
    u, _ = bs.while_loop(lambda c: c[1] < 3, lambda c: (1.7 * halve(c[0]), c[1] + 1), (u, 0))
    return np.sum(u**2) + np.sum(ys)


def test_loops_inside_steps() -> None:
    u = np.array([0.5, 1.0, 2.0])
    value, gradient, report = bs.value_and_grad(_nested, has_report=True)(u)
    assert "while_loop inside the step" in report.scans[0].executor
    h = 1e-6
    numeric = [(_nested(u + h * e) - _nested(u - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)
    np.testing.assert_allclose(bs.jvp(_nested, (u,), (u,))[1], np.dot(gradient, u), rtol=1e-10)


def test_in_items_of_a_sum_and_beside_scans() -> None:
    def loss(u: Any) -> Any:
        total = bs.sum_over([3, 5], lambda n: counted_loop(n)(u, np.array(0.2)))
        return total + known_scan(4)(u, np.array(0.2))

    single = [bs.grad(f)(U, np.array(0.2)) for f in (known_scan(3), known_scan(5), known_scan(4))]
    np.testing.assert_allclose(bs.grad(loss)(U), sum(single), rtol=1e-13)


def test_plan_says_that_the_length_is_unknown() -> None:
    forecast = bs.plan(counted_loop(7))(U, np.array(0.2))
    assert "number of steps unknown" in str(forecast)
    assert forecast.scans[0].schedule == "Online"
    measured = bs.plan(lambda u: counted_loop(7)(u, 0.2) + known_scan(9)(u, 0.2), measure=True)(U)
    assert [s.n_steps for s in measured.scans] == [-1, 9]


def test_fori_loop() -> None:
    def loss(x: Any) -> Any:
        return bs.fori_loop(2, 5, lambda i, c: c * i + x, x)

    assert bs.value_and_grad(loss)(1.0) == (2 * 3 * 4 + 3 * 4 + 4 + 1, 41.0)
    assert bs.fori_loop(3, 3, lambda i, c: c + i, 7) == 7


# --------------------------------------------------------------------------- resuming


class _Killed(Exception):
    pass


class _KilledEvent(Event):
    """Raises at the n-th offer, after it has noted the point; or hands out what is noted."""

    def __init__(self, noted: dict[int, Any], number: int, left: list[int]) -> None:
        self.noted, self.number, self.left = noted, number, left

    def results(self) -> Any:
        return self.noted.get(self.number) if self.number in self.noted else None

    def point(self) -> Point | None:
        notes, arrays = self.noted.get(-self.number, (None, None))
        return Point(notes, arrays) if notes is not None else None

    def offer(self, capture: Any) -> None:
        self.left[0] -= 1
        if self.left[0] == 0:
            notes, arrays = capture()
            self.noted[-self.number] = notes, {k: np.array(a) for k, a in arrays.items()}
            raise _Killed

    def finish(self, results: Any) -> None:
        self.noted[self.number] = [np.array(a) for a in results]


class _KilledJournal(AbstractJournal):
    def __init__(self, noted: dict[int, Any], n_offers: int) -> None:
        self.noted, self.left, self.n = noted, [n_offers], 0

    def event(self) -> Event:
        self.n += 1
        return _KilledEvent(self.noted, self.n, self.left)


@pytest.mark.parametrize("snapshots", [1, 4])
def test_goes_on_after_a_kill(
    snapshots: int, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and reverse, at every offer of a durable point."""
    request = bs.Checkpointing(snapshots=snapshots)
    n = 400 if executor == "compiled" else 12
    expected = gradient_of(counted_loop(n, request))
    resumed = []
    for n_offers in range(1, 60):
        noted: dict[int, Any] = {}
        finished = True
        for offers in (n_offers, 10**9):
            journal = _KilledJournal(noted, offers)
            handlers = partial(execute.Handlers, journal=journal)
            with monkeypatch.context() as patch:
                patch.setattr(execute, "Handlers", handlers)
                try:
                    found = gradient_of(counted_loop(n, request))
                except _Killed:
                    finished = False
        assert_same(found, expected)
        if finished:
            break
        resumed.append(found[2].scans[0].resumed_at)
    assert any("of a loop" in text for text in resumed)
    assert any("steps reversed" in text for text in resumed)


def test_external_step_in_a_loop() -> None:
    def loss(u: Any, nu: Any, is_external: bool) -> Any:
        step = traced_burgers(nu)
        if is_external:
            step = bs.external_step(Burgers(), consts={"nu": nu}, y_like=U[2::7])
        advance = lambda c: (step(c[0], 0.01)[0], c[1] + 1)  # noqa: E731
        return np.sum(bs.while_loop(lambda c: c[1] < 9, advance, (u, 0))[0] ** 2)

    both = [
        bs.value_and_grad(lambda u, nu, e=e: loss(u, nu, e), (0, 1), has_report=True)
        for e in (True, False)
    ]
    found, expected = (f(U, np.array(0.3)) for f in both)
    assert "external: Burgers" in found[2].scans[0].executor
    assert found[0] == pytest.approx(expected[0])
    for x, y in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10)
