"""Every schedule, with every store, on every kind of state: the same bits.

In a normal run pairs of choices are covered (each two values of two different axes meet), on the
reference evaluator and compiled; `make test-all` runs the whole product.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import checkpoint_schedules
import numpy as np
import psutil
import pytest
from marks import more

import backsweep as bs

SCHEDULES = ("store_all", "binomial", "multistage", "mixed", "online", "adapter")
STORES = ("memory", "hdf5", "tiered")
LENGTHS = (1, 2, 10, 1000)
STATES = ("array", "pytree", "complex", "float32")

SLOT = 64
"""Bytes of each of the small fields in the arena."""


def make_loss(state: str, n: int, request: Any) -> Any:
    """A nonlinear simulation whose loss is made of the last state and of records."""

    def loss(u: Any, a: Any) -> Any:
        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            v = carry["u"] if state == "pytree" else carry
            v = v + a * np.roll(v, 1) * v + x * 1e-3
            if state == "pytree":
                return {"u": v, "k": 0.99 * carry["k"] + v[0], "i": carry["i"] + 1}, v[:2]
            return v, v[:2]

        first = {"u": u, "k": 1 * u[1], "i": np.int64(3)} if state == "pytree" else u
        xs = np.linspace(0, 1, n).astype(np.real(u).dtype)
        last, ys = bs.scan(step, first, xs, checkpointing=request)
        v = last["u"] * last["k"] if state == "pytree" else last
        return np.sum(np.abs(v) ** 2) + np.sum(np.abs(ys) ** 2)

    return loss


def arguments(state: str) -> tuple[np.ndarray, np.ndarray]:
    dtype = {"complex": np.complex128, "float32": np.float32}.get(state, np.float64)
    u = np.linspace(0.1, 1, 7) + (0.3j if state == "complex" else 0)
    return u.astype(dtype), np.full(7, 1e-3, dtype)


def make_request(schedule: str, store: str, state: str, n: int, folder: Path) -> Any:
    """A budget with which the store is used."""
    n_slots = {"memory": 5, "hdf5": 0, "tiered": 3}[store]
    fields = {"pytree": 3, "complex": 2}.get(state, 1)
    settings: dict[str, Any] = {"memory": n_slots * fields * SLOT, "schedule": schedule}
    if store != "memory":
        settings |= {"disk": "1 GB", "directory": str(folder)}
    if schedule == "store_all":
        if store == "memory":
            settings.pop("memory")
    elif schedule == "adapter":
        s, in_memory = min(5, n - 1), {"memory": 5, "hdf5": 0, "tiered": 2}[store]
        settings["schedule"] = checkpoint_schedules.MultistageCheckpointSchedule(
            n, min(in_memory, s), max(s - in_memory, 0)
        )
    elif store != "memory" and n > 50:
        settings["snapshots"] = 20
    return bs.Checkpointing(**settings)


def is_possible(schedule: str, store: str, n: int, state: str) -> bool:
    """Whether a schedule has such a store."""
    if schedule in ("mixed", "online"):
        return store == "memory"
    if schedule == "multistage":
        return store != "memory"
    return schedule != "adapter" or n > 1


CASES = [c for c in itertools.product(SCHEDULES, STORES, LENGTHS, STATES) if is_possible(*c)]


def pairs() -> list[tuple[Any, ...]]:
    """Cases in which each two values of two axes meet at least once."""
    cases, wanted = list(CASES), set()
    random.Random(0).shuffle(cases)

    def of(case: tuple[Any, ...]) -> set[Any]:
        return set(itertools.combinations(enumerate(case), 2))

    for case in cases:
        wanted |= of(case)
    chosen = []
    while wanted:
        best = max(cases, key=lambda c: len(of(c) & wanted))
        chosen.append(best)
        wanted -= of(best)
    return chosen


def check(case: tuple[Any, ...], folder: Path) -> None:
    schedule, store, n, state = case
    request = make_request(schedule, store, state, n, folder)
    args = arguments(state)
    kept = bs.Checkpointing(schedule="store_all")
    value, gradient = bs.value_and_grad(make_loss(state, n, kept), (0, 1))(*args)
    assert all(np.any(g) and np.all(np.isfinite(g)) for g in gradient)
    repeated = bs.value_and_grad(make_loss(state, n, request), (0, 1), has_report=True)
    for _ in range(2):
        again, other, report = repeated(*args)
        assert again == value and all(map(np.array_equal, other, gradient)), case
        assert n < 10 or (report.scans[0].n_disk_writes > 0) == (store != "memory"), case
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("case", pairs(), ids=lambda c: "-".join(map(str, c)))
def test_pairs_interpreted(
    case: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    schedule, store, n, state = case
    check((schedule, store, min(n, 60), state), tmp_path)


@pytest.mark.parametrize("state", [*STATES[:3], more(STATES[3])])
def test_pairs_compiled(state: str, tmp_path: Path) -> None:
    for case in pairs():
        if case[3] == state:
            check(case, tmp_path)


@pytest.mark.slow_all
@pytest.mark.parametrize("state", STATES)
def test_all_compiled(state: str, tmp_path: Path) -> None:
    for case in CASES:
        if case[3] == state:
            check(case, tmp_path)


@pytest.mark.slow_all
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_interpreted(schedule: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    for case in CASES:
        if case[0] == schedule:
            check(case, tmp_path)


@pytest.mark.parametrize("store", [s if s != "tiered" else more(s) for s in STORES])
def test_the_hundredth_gradient(store: str, tmp_path: Path) -> None:
    """Nothing grows: memory, handles, threads, files."""
    request = make_request("multistage" if store != "memory" else "binomial", store, "array", 300,
                           tmp_path)  # fmt: skip
    gradient = bs.grad(make_loss("array", 300, request))
    args, process = arguments("array"), psutil.Process()
    first = gradient(*args)
    for _ in range(20):
        gradient(*args)
    before = process.memory_info().rss, process.num_fds(), process.num_threads()
    for _ in range(80):
        last = gradient(*args)
    after = process.memory_info().rss, process.num_fds(), process.num_threads()
    assert np.array_equal(first, last)
    assert after[0] - before[0] < 4e6 and after[1:] == before[1:]
    assert os.listdir(tmp_path) == []
