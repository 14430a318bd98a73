"""Advances and reverse steps, counted inside the compiled loops; numbers of steps in no source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.codegen import statistics
from backsweep.schedule.binomial import extra_advances


def _loss(n: int, s: int | None) -> Any:
    schedule = "store_all" if s is None else "binomial"
    request = bs.Checkpointing(snapshots=s, schedule=schedule)

    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return u - 0.1 * u * u, None

        return np.sum(bs.scan(step, u, length=n, checkpointing=request)[0])

    return loss


@pytest.fixture(scope="module")
def start() -> np.ndarray:
    """The initial state, after everything is compiled."""
    u = np.array([0.3, 1.2, 2.7])
    for s in (None, 1):
        bs.grad(_loss(3, s))(u)
    return u


def _exact(u: np.ndarray, n: int) -> np.ndarray:
    slope = np.ones_like(u)
    for _ in range(n):
        slope, u = slope * (1 - 0.2 * u), u - 0.1 * u * u
    return slope


def test_random_numbers_of_steps_and_snapshots(start: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    before = statistics.compilations
    pairs = [(1, 1), (2, 1), (2, 2), (3, 3), (1, 7)]
    while len(pairs) < 200:
        n = int(np.exp(rng.uniform(0, np.log(3000))))
        s = int(np.exp(rng.uniform(0, np.log(min(n, 300) + 1))))
        if extra_advances(n, s) < 60_000:
            pairs.append((n, s))
    for n, s in pairs:
        _, gradient, report = bs.value_and_grad(_loss(n, s), has_report=True)(start)
        assert report.n_advances == extra_advances(n, min(s, n)) + 1, (n, s)
        assert report.n_reverses == n, (n, s)
        np.testing.assert_allclose(gradient, _exact(start, n), rtol=1e-11)
    assert statistics.compilations == before


def test_store_all_advances_each_step_once(start: np.ndarray) -> None:
    for n in (1, 2, 17, 2000):
        report = bs.value_and_grad(_loss(n, None), has_report=True)(start)[2]
        assert (report.n_advances, report.n_reverses) == (n, n)


def test_oracle_of_the_design(start: np.ndarray) -> None:
    report = bs.value_and_grad(_loss(1000, 20), has_report=True)(start)[2]
    assert (report.n_advances, report.n_reverses) == (2748, 1000)


def test_budget_in_bytes_is_kept(start: np.ndarray) -> None:
    request = bs.Checkpointing(memory=10_000)

    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return u - 0.1 * u * u, None

        return np.sum(bs.scan(step, u, length=5000, checkpointing=request)[0])

    report = bs.value_and_grad(loss, has_report=True)(start)[2]
    scan = report.scans[0]
    assert scan.schedule == "Binomial" and scan.n_snapshots > 100
    assert 5_000 < scan.snapshot_bytes_memory <= 10_000
    assert report.n_advances == extra_advances(5000, scan.n_snapshots) + 1
