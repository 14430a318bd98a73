"""A gradient that was stopped goes on and returns the same bits."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulations
from marks import more

import backsweep as bs
from backsweep.comm import serial
from backsweep.errors import Stopped
from backsweep.runtime import journal, pace, stop, sweeper, traced
from backsweep.storage.durable import DurableFolder

NEVER = 1e9
KINDS: dict[str, dict[str, Any]] = {
    "all states": {},
    "binomial": {"snapshots": 5, "schedule": "binomial"},
    "one snapshot": {"snapshots": 1, "schedule": "binomial"},
    "disk": {"snapshots": 6, "memory": 0, "disk": "1 GB"},
    "online": {"snapshots": 5, "schedule": "online"},
}


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a signal come at the n-th pause from now."""
    left = [-1]
    is_due = journal.Journal._is_due

    def count(self: journal.Journal) -> bool:
        left[0] -= 1
        if left[0] == 0:
            stop._note(signal.SIGUSR1, None)
        return is_due(self)

    monkeypatch.setattr(journal.Journal, "_is_due", count)
    # Pieces of single steps: a pause after each.
    monkeypatch.setattr(pace, "MAX_SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr(sweeper, "FIRST_CALL_OPERATIONS", 1)

    def arm(n: int) -> None:
        left[0] = n

    return arm


def same(a: Any, b: Any) -> bool:
    return a[0] == b[0] and all(np.array_equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def finish(problem: Any, arm: Any, pauses: int, requests: Any) -> tuple[Any, int]:
    """Stop after more and more pauses, until the gradient is there.

    What a run rebuilds before it comes further is made of pauses too: with the same number of them
    each time, it might never get there.
    """
    for n_stops in range(100):
        arm(pauses * (n_stops + 1))
        try:
            return problem.value_and_grad(requests(n_stops)), n_stops
        except Stopped as stopped:
            assert stopped.code == 85
    raise AssertionError("no progress")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["burgers", more("schroedinger")])
def test_stopped_again_and_again(name: str, kind: str, stop_after: Any, tmp_path: Path) -> None:
    problem = simulations.PROBLEMS[name]()
    expected = problem.value_and_grad(bs.Checkpointing(schedule="store_all"))
    folder = tmp_path / "points"
    request = bs.Checkpointing(directory=str(folder), resume=True, interval=NEVER, **KINDS[kind])
    found, n_stops = finish(problem, stop_after, problem.n_steps // 3, lambda _: request)
    assert same(found, expected)
    assert n_stops >= 3
    assert not folder.exists()


def test_with_another_budget_each_time(stop_after: Any, tmp_path: Path) -> None:
    """Neither the memory, nor the schedule, nor snapshots on disk are part of a point."""
    problem = simulations.PROBLEMS["acoustic"]()
    expected = problem.value_and_grad(bs.Checkpointing(schedule="store_all"))
    folder = str(tmp_path / "points")
    kinds = list(KINDS.values())

    def request(k: int) -> bs.Checkpointing:
        return bs.Checkpointing(
            directory=folder, resume=True, interval=NEVER, **kinds[k % len(kinds)]
        )

    found, n_stops = finish(problem, stop_after, problem.n_steps // 4 + 1, request)
    assert same(found, expected) and n_stops >= 5
    assert not list(tmp_path.iterdir())


@pytest.fixture
def n_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pieces of work done, compiled or in Python."""
    counted = [0]

    def counting(run: Any) -> Any:
        def counted_run(*args: Any) -> Any:
            counted[0] += 1
            return run(*args)

        return counted_run

    monkeypatch.setattr(sweeper.Sweeper, "run", counting(sweeper.Sweeper.run))
    for name in ("advance", "reverse"):
        own = getattr(traced.TracedStep, name)
        monkeypatch.setattr(traced.TracedStep, name, counting(own))
    return counted


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("jit", ["compiled", "python"])
def test_stopped_while_it_rebuilds(
    monkeypatch: pytest.MonkeyPatch,
    stop_after: Any,
    n_calls: list[int],
    kind: str,
    jit: str,
    tmp_path: Path,
) -> None:
    """A run that goes on in the reverse sweep may advance for long; it stops at once, too."""
    if jit == "python":
        monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    problem = simulations.PROBLEMS["acoustic"]()
    expected = problem.value_and_grad(bs.Checkpointing(snapshots=5))
    request = bs.Checkpointing(
        directory=str(tmp_path / "points"), resume=True, interval=NEVER, **KINDS[kind]
    )
    # At the end of the forward sweep, and when something is reversed; each time twice.
    for pauses in (problem.n_steps, 1, 2, problem.n_steps + 20, 1, 2):
        stop_after(pauses)
        n_calls[0] = 0
        with pytest.raises(Stopped):
            problem.value_and_grad(request)
        assert n_calls[0] <= pauses + 1
    stop_after(-1)
    assert same(problem.value_and_grad(request), expected)


def test_python_executor(monkeypatch: pytest.MonkeyPatch, stop_after: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    problem = simulations.PROBLEMS["burgers"]()
    expected = problem.value_and_grad(bs.Checkpointing(snapshots=5))
    for kind in KINDS.values():
        request = bs.Checkpointing(directory=str(tmp_path), resume=True, interval=NEVER, **kind)
        found, n_stops = finish(problem, stop_after, 2 * problem.n_steps // 5, lambda _: request)  # noqa: B023
        assert same(found, expected) and n_stops >= 2
        assert not list(tmp_path.iterdir())


def test_a_slow_disk_leaves_time_to_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The interval is one of work, from the end of one point to the next."""
    clock = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: clock[0])
    request = bs.Checkpointing(directory=str(tmp_path), resume=True, interval=10.0)
    with DurableFolder(tmp_path, {}) as folder:
        events = journal.Journal(folder, request, "", serial())
        saved = []

        def save(arrays: Any, notes: Any) -> None:
            saved.append(clock[0])
            clock[0] += 60

        monkeypatch.setattr(folder, "save", save)
        while clock[0] < 200:
            events.offer(1, lambda: ({}, {}))
            clock[0] += 1
    assert saved == [10, 80, 150]


@pytest.mark.parametrize("jit", [more("compiled"), "python"])
def test_a_scan_that_is_not_differentiated(
    monkeypatch: pytest.MonkeyPatch, stop_after: Any, n_calls: list[int], jit: str, tmp_path: Path
) -> None:
    """A spin-up may take longer than a job."""
    if jit == "python":
        monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    n = 40

    def step(u: Any, f: Any) -> Any:
        return u + 0.1 * np.roll(u, 1) * (1 - u) + f, u[3]

    def loss(start: Any, u: Any, request: Any) -> Any:
        force = 0.01 * np.cos(np.arange(n))
        spun, ys = bs.scan(step, start, force, checkpointing=request)
        last, _ = bs.scan(step, u * spun, force[:5], checkpointing=request)
        return np.sum(last**2) + np.sum(ys)

    def value_and_grad(request: Any) -> Any:
        function = bs.value_and_grad(lambda start, u: loss(start, u, request), 1)
        value, gradient = function(np.linspace(0, 1, 7), np.linspace(0.5, 0.6, 7))
        return value, [gradient]

    expected = value_and_grad(bs.Checkpointing(snapshots=3))
    request = bs.Checkpointing(directory=str(tmp_path), resume=True, interval=NEVER)
    n_calls[0] = 0
    for _ in range(3):
        stop_after(10)
        with pytest.raises(Stopped):
            value_and_grad(request)
    assert n_calls[0] == 30
    stop_after(-1)
    assert same(value_and_grad(request), expected)
    assert n_calls[0] == n + 5 + 5
