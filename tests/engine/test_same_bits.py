"""Gradients are bitwise the same for every schedule, store, thread count and process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulations

import backsweep as bs
from backsweep.codegen import touch
from backsweep.runtime import compiled
from backsweep.schedule.binomial import extra_advances

STORE_ALL = bs.Checkpointing(schedule="store_all")


def _equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(params=sorted(simulations.PROBLEMS))
def problem(request: pytest.FixtureRequest) -> simulations.Problem:
    return simulations.PROBLEMS[request.param]()


def test_schedules_and_stores(problem: simulations.Problem, tmp_path: Path) -> None:
    value, gradient, report = problem.value_and_grad(STORE_ALL)
    n = problem.n_steps
    assert (report.n_advances, report.n_reverses) == (n, n)
    assert all(np.any(g != 0) and np.all(np.isfinite(g)) for g in gradient)
    for s in (5, 37, n // 3):
        for on_disk in (False, True):
            place = {"memory": 0, "disk": "1 GB", "directory": str(tmp_path)} if on_disk else {}
            request = bs.Checkpointing(snapshots=s, **place)
            other_value, other, report = problem.value_and_grad(request)
            assert other_value == value
            assert _equal(other, gradient)
            assert report.n_advances == extra_advances(n, s) + 1
            assert report.n_reverses == n
            assert report.scans[0].executor == "native"
            assert (report.scans[0].snapshot_bytes_disk > 0) == on_disk
            assert (report.scans[0].n_disk_writes > 0) == on_disk
    assert list(tmp_path.iterdir()) == []


def test_store_all_on_disk(problem: simulations.Problem, tmp_path: Path) -> None:
    request = bs.Checkpointing(memory=0, disk="1 GB", directory=str(tmp_path), schedule="store_all")
    _, gradient, report = problem.value_and_grad(request)
    assert _equal(gradient, problem.value_and_grad(STORE_ALL)[1])
    assert report.n_advances == problem.n_steps


@pytest.mark.parametrize("name", sorted(simulations.LARGE))
def test_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MIN_WORK_FOR_THREADS", 0)
    large, results = simulations.LARGE[name](), []
    assert max(np.size(a) for a in large.args) > 2 * touch.ALONE_BELOW
    for request in (STORE_ALL, bs.Checkpointing(snapshots=5)):
        for n_threads in (1, 2, 3):
            monkeypatch.setenv("BACKSWEEP_NUM_THREADS", str(n_threads))
            value, gradient, report = large.value_and_grad(request)
            assert report.scans[0].n_threads == n_threads
            results.append((value, *gradient))
    assert all(_equal(results[0], other) for other in results[1:])


def test_second_process() -> None:
    names = sorted(simulations.PROBLEMS)
    run = subprocess.run(
        [sys.executable, simulations.__file__, *names], capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    for name in names:
        report = simulations.PROBLEMS[name]().value_and_grad(STORE_ALL)[2]
        assert found[name] == [report.value_fingerprint, report.gradient_fingerprint]


def test_interpreter_agrees(problem: simulations.Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference interpreter gives the same bits where no libm is called."""
    value, gradient, _ = problem.value_and_grad(STORE_ALL)
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    other_value, other, report = problem.value_and_grad(bs.Checkpointing(snapshots=5))
    assert report.scans[0].executor.startswith("python")
    assert (report.n_advances, report.n_reverses) == (
        extra_advances(problem.n_steps, 5) + 1,
        problem.n_steps,
    )
    assert other_value == value
    for a, b in zip(other, gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6 if a.dtype == np.float32 else 1e-13)
