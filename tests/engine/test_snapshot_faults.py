"""Snapshots damaged, swapped or gone between the sweeps: the right gradient, or one error."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.errors import SnapshotError

N = 90
U = np.linspace(0.2, 1.4, 700)


def total(request: bs.Checkpointing) -> Callable[[Any], Any]:
    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return u - 0.1 * u * np.roll(u, 1), None

        return np.sum(bs.scan(step, u, length=N, checkpointing=request)[0] ** 2)

    return loss


def truncate(files: list[Path]) -> None:
    # The last ones are still in buffers.
    os.truncate(files[len(files) // 2], 900)


def flip(files: list[Path]) -> None:
    rng = np.random.default_rng(len(files))
    for file in files[1::2]:
        raw = bytearray(file.read_bytes())
        raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        file.write_bytes(raw)


def swap(files: list[Path]) -> None:
    a, b = files[1].read_bytes(), files[2].read_bytes()
    files[1].write_bytes(b)
    files[2].write_bytes(a)


def remove_some(files: list[Path]) -> None:
    for file in files[::2]:
        file.unlink()


def remove_folder(files: list[Path]) -> None:
    shutil.rmtree(files[0].parent)


def empty_all(files: list[Path]) -> None:
    for file in files:
        os.truncate(file, 0)


FAULTS = (truncate, flip, swap, remove_some, remove_folder, empty_all)


@pytest.mark.parametrize("memory", [0, 60_000], ids=["waiting", "background"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "interpreted"])
def test_damage(
    fault: Any, memory: int, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", str(int(not compiled)))
    folder = tmp_path / "snapshots"
    request = bs.Checkpointing(snapshots=24, memory=memory, disk="1 MB", directory=str(folder))
    expected = bs.grad(total(bs.Checkpointing(snapshots=24)))(U)
    _, pullback = bs.vjp(total(request), U)
    store = pullback._residuals and next(
        r.driver.store for r in pullback._residuals if hasattr(r, "driver")
    )
    store.flush()
    fault(sorted(folder.iterdir()))
    with pytest.warns(RuntimeWarning, match="the run goes on and advances again from an older"):
        (found,) = pullback(1.0)
    assert np.array_equal(found, expected)
    assert pullback.report.scans[0].n_lost > 0
    pullback.close()
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_store_that_always_fails_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any memory for snapshots a run would take for ever: it is refused."""
    monkeypatch.setattr(os, "posix_fallocate", _fail)
    request = bs.Checkpointing(memory=0, disk="1 GB", directory=str(tmp_path), snapshots=500)

    def loss(u: Any) -> Any:
        step = lambda u, _: (u - 0.1 * u * u, None)  # noqa: E731
        return np.sum(bs.scan(step, u, length=20_000, checkpointing=request)[0])

    with pytest.warns(RuntimeWarning), pytest.raises(SnapshotError, match="No space left"):
        bs.grad(loss)(U[:5])
    assert list(tmp_path.iterdir()) == []


def _fail(*args: Any) -> None:
    raise OSError(28, "No space left on device")


LIMITED = """
import os, resource, sys
import backsweep as bs
sys.path.insert(0, sys.argv[1])
import test_snapshot_faults as t
memory, folder = int(sys.argv[3]), sys.argv[2]
request = bs.Checkpointing(snapshots=24, memory=memory, disk="1 MB", directory=folder)
bs.grad(t.total(request))(t.U)
n_open = len(os.listdir("/proc/self/fd")) - 1
resource.setrlimit(resource.RLIMIT_NOFILE, (n_open, n_open))
try:
    bs.grad(t.total(request))(t.U)
except bs.BacksweepError as error:
    print(error)
"""


@pytest.mark.parametrize("memory", [0, 60_000])
def test_no_handles_left(memory: int, tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, here, str(tmp_path), str(memory)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.stdout.startswith("snapshots cannot be written to the folder"), run.stderr
    assert "Too many open files" in run.stdout


def test_files_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as some batch systems set it: Python turns the signal into an error."""
    request = bs.Checkpointing(snapshots=24, memory=0, disk="1 MB", directory=str(tmp_path))
    expected = bs.grad(total(bs.Checkpointing(snapshots=24)))(U)
    bs.grad(total(request))(U)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.warns(RuntimeWarning, match="File too large"):
            found = bs.grad(total(request))(U)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert np.array_equal(found, expected) and list(tmp_path.iterdir()) == []
