"""Snapshots that the machine stores to the disk's buffers and loads from there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.runtime import driver
from backsweep.runtime.choose import BUFFERS
from backsweep.runtime.sweeper import StateMemory
from backsweep.storage.hdf5 import HDF5Store

SIZE = 40
U = np.linspace(0.2, 1.1, SIZE)
SLOTS = 2 * BUFFERS + 1
"""States in memory with which there are buffers."""


def make_loss(n: int, request: bs.Checkpointing) -> Any:
    """Older values are handed on: a buffer is read for four steps."""

    def step(carry: Any, _: Any) -> Any:
        u, a, b, c, count = carry
        new = 0.9 * u + 0.2 * a - 0.3 * b + 0.2 * c - 0.01 * u * np.roll(u, 1)
        return (new, u, a, b, count + 1), None

    def loss(u: Any) -> Any:
        first = (u, 0.9 * u, 0.8 * u, 0.7 * u, 0.0)
        (last, _, before, _, count), _ = bs.scan(step, first, length=n, checkpointing=request)
        return np.sum(last**2) + np.sum(before) * count

    return loss


def make_request(n_snapshots: int, folder: Path | None = None) -> bs.Checkpointing:
    if folder is None:
        return bs.Checkpointing(snapshots=n_snapshots)
    n_bytes = 4 * SIZE * 8 + 64
    return bs.Checkpointing(
        snapshots=n_snapshots, memory=SLOTS * n_bytes, disk="1 MB", directory=str(folder)
    )


def gradient(loss: Any) -> tuple[np.ndarray, Any]:
    _, found, report = bs.value_and_grad(loss, has_report=True)(U)
    return found, report


@pytest.fixture
def most_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files there were after each write."""
    counts: list[int] = []
    write = HDF5Store._write

    def counted(self: HDF5Store, *args: Any) -> None:
        write(self, *args)
        counts.append(len(os.listdir(self.directory)))

    monkeypatch.setattr(HDF5Store, "_write", counted)
    return counts


@pytest.mark.parametrize("seconds", [0.0, 3e-3, 1e9], ids=["each", "some", "all"])
@pytest.mark.parametrize(("n", "n_snapshots"), [(12, 11), (60, 9), (200, 14), (300, 30)])
def test_same_bits_however_rows_are_batched(
    n: int, n_snapshots: int, seconds: float, tmp_path: Path, monkeypatch: Any, most_files: Any
) -> None:
    monkeypatch.setattr(driver, "LEAST_SECONDS", seconds)
    expected = bs.grad(make_loss(n, make_request(n_snapshots)))(U)
    found, report = gradient(make_loss(n, make_request(n_snapshots, tmp_path)))
    assert np.array_equal(found, expected)
    (scan,) = report.scans
    assert scan.n_disk_writes > 0 and scan.n_disk_reads > 0 and scan.n_lost == 0
    assert scan.n_advances == bs.plan(make_loss(n, make_request(n_snapshots)))(U).n_advances
    assert max(most_files) <= n_snapshots - (SLOTS - BUFFERS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_slow_disk(n_threads: int, tmp_path: Path, monkeypatch: Any, most_files: Any) -> None:
    """Every buffer is in use, and the run waits and says so."""
    monkeypatch.setenv("BACKSWEEP_NUM_THREADS", str(n_threads))
    write, read = HDF5Store._write, HDF5Store._read
    for name, act in (("_write", write), ("_read", read)):
        slow = lambda self, *args, act=act: (time.sleep(0.003), act(self, *args))[1]  # noqa: E731
        monkeypatch.setattr(HDF5Store, name, slow)
    expected = bs.grad(make_loss(150, make_request(14)))(U)
    found, report = gradient(make_loss(150, make_request(14, tmp_path)))
    assert np.array_equal(found, expected)
    assert report.scans[0].disk_wait_seconds > 0.01
    assert max(most_files) <= 14 - (SLOTS - BUFFERS)


def test_writes_that_fail(tmp_path: Path, monkeypatch: Any) -> None:
    """Whichever of them: the states of what is lost are made again."""
    expected = bs.grad(make_loss(200, make_request(14)))(U)
    write = HDF5Store._write
    for k in range(0, 40, 7):
        n_writes = iter(range(10**6))

        def fail(self: HDF5Store, *args: Any, k: int = k, n_writes: Any = n_writes) -> None:
            if k <= next(n_writes) < k + 3:
                raise bs.BacksweepError("this one fails")
            write(self, *args)

        monkeypatch.setattr(HDF5Store, "_write", fail)
        with pytest.warns(RuntimeWarning, match="this one fails"):
            found, report = gradient(make_loss(200, make_request(14, tmp_path)))
        assert np.array_equal(found, expected) and report.scans[0].n_lost > 0
        assert list(tmp_path.iterdir()) == []


def test_buffers_given_back_too_early_would_be_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(StateMemory, "is_used", lambda self, number: False)
    write = HDF5Store._write
    slow = lambda self, *args: (time.sleep(0.002), write(self, *args))[1]  # noqa: E731
    monkeypatch.setattr(HDF5Store, "_write", slow)
    monkeypatch.setattr(driver, "LEAST_SECONDS", 0.0)
    expected = bs.grad(make_loss(200, make_request(14)))(U)
    found = bs.grad(make_loss(200, make_request(14, tmp_path)))(U)
    assert not np.array_equal(found, expected)
