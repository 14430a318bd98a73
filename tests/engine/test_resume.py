"""A gradient that was stopped goes on and returns the same bits."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulations

import backsweep as bs
from backsweep.errors import Stopped
from backsweep.runtime import journal, pace, stop, sweeper

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
    """Stop every `pauses` pauses, until the gradient is there."""
    for n_stops in range(10_000):
        arm(pauses)
        try:
            return problem.value_and_grad(requests(n_stops)), n_stops
        except Stopped as stopped:
            assert stopped.code == 85
    raise AssertionError("no progress")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["burgers", "schroedinger"])
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


def test_python_executor(monkeypatch: pytest.MonkeyPatch, stop_after: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    problem = simulations.PROBLEMS["burgers"]()
    expected = problem.value_and_grad(bs.Checkpointing(snapshots=5))
    for kind in KINDS.values():
        request = bs.Checkpointing(directory=str(tmp_path), resume=True, interval=NEVER, **kind)
        found, n_stops = finish(problem, stop_after, 2 * problem.n_steps // 5, lambda _: request)  # noqa: B023
        assert same(found, expected) and n_stops >= 2
        assert not list(tmp_path.iterdir())
