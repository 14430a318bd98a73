"""`record_adjoint`: what it writes, and that the gradient does not notice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from simulations import PROBLEMS

import backsweep as bs
from backsweep.errors import RecordError, ResultError
from backsweep.runtime import scan as scan_module
from backsweep.runtime.journal import Event, Point

N, SIZE = 20, 5
A = 0.4 * np.random.default_rng(0).standard_normal((SIZE, SIZE))
WEIGHTS = np.linspace(1, 2, SIZE)


def linear(checkpointing: Any = None) -> Any:
    """u goes to A u + 0.1 v, v to 0.9 v; the loss is w.u at the end and u[2] at each step."""

    def step(carry: Any, _: Any) -> Any:
        u, v = carry
        return (A @ u + 0.1 * v, 0.9 * v), u[2]

    def loss(u: Any) -> Any:
        (u, _), ys = bs.scan(step, (u, 2 * u), length=N, checkpointing=checkpointing)
        return np.sum(WEIGHTS * u) + np.sum(ys)

    return loss


def adjoint_by_hand() -> tuple[np.ndarray, np.ndarray]:
    u_bars, v_bars = np.zeros((N, SIZE)), np.zeros((N, SIZE))
    u_bar, v_bar = WEIGHTS, np.zeros(SIZE)
    for n in reversed(range(N)):
        u_bar, v_bar = A.T @ u_bar + np.eye(SIZE)[2], 0.1 * u_bar + 0.9 * v_bar
        u_bars[n], v_bars[n] = u_bar, v_bar
    return u_bars, v_bars


def schedules(folder: Path) -> dict[str, bs.Checkpointing]:
    return {
        "store_all": bs.Checkpointing(schedule="store_all"),
        "binomial": bs.Checkpointing(snapshots=4),
        "one snapshot": bs.Checkpointing(snapshots=1),
        "disk": bs.Checkpointing(memory=0, disk="10 MB", directory=str(folder), snapshots=4),
        "online": bs.Checkpointing(snapshots=4, schedule="online"),
    }


NAMES = list(schedules(Path()))


@pytest.mark.parametrize("every", [1, 7, 50])
@pytest.mark.parametrize("name", NAMES)
def test_fields_and_norms_are_those_of_the_adjoint(name: str, every: int, tmp_path: Path) -> None:
    loss, path, u = linear(schedules(tmp_path)[name]), tmp_path / "adjoint.h5", np.ones(SIZE)
    expected = bs.grad(loss)(u)
    with bs.record_adjoint(path, every=every):
        np.testing.assert_array_equal(bs.grad(loss)(u), expected)
    with h5py.File(path) as file:
        sweep = file["sweep0"]
        assert list(file) == ["sweep0"]
        assert sweep.attrs["n_steps"] == N and sweep.attrs["every"] == every
        assert len(sweep.attrs["program"]) == 32
        np.testing.assert_array_equal(sweep["step"], np.arange(0, N, every))
        for key, bars in zip(("u", "v"), adjoint_by_hand(), strict=True):
            np.testing.assert_allclose(sweep[key], bars[::every], rtol=1e-13, atol=1e-15)
            norms = [np.linalg.norm(b) for b in sweep[key][()]]
            np.testing.assert_array_equal(sweep[f"{key}_norm"], norms)
            assert [d.label for d in sweep[key].dims] == ["step", f"{key}_0"]
        total = sweep["u"][0] + 2 * sweep["v"][0]
    np.testing.assert_allclose(total, expected, rtol=1e-13)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_the_gradient_keeps_its_bits(problem: str, tmp_path: Path) -> None:
    """Fields that are handed on from step to step, residuals, complex numbers, float32."""
    own, path = PROBLEMS[problem](), tmp_path / "adjoint.h5"
    records = []
    for request in (bs.Checkpointing(), bs.Checkpointing(snapshots=5)):
        expected = own.value_and_grad(request)[2]
        with bs.record_adjoint(path, every=11):
            report = own.value_and_grad(request)[2]
        assert report.gradient_fingerprint == expected.gradient_fingerprint
        assert (report.n_advances, report.n_reverses) == (expected.n_advances, own.n_steps)
        with h5py.File(path) as file:
            records.append({k: v[()] for k, v in file["sweep0"].items()})
    assert records[0].keys() == records[1].keys()
    for key in records[0]:
        np.testing.assert_array_equal(records[0][key], records[1][key])
        assert not key.endswith("norm") or np.all(np.isfinite(records[0][key]))


def test_python_executor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    u = np.ones(SIZE)
    for request in (bs.Checkpointing(), bs.Checkpointing(snapshots=3)):
        expected = bs.grad(linear(request))(u)
        with bs.record_adjoint(tmp_path / "adjoint.h5", every=3):
            np.testing.assert_array_equal(bs.grad(linear(request))(u), expected)
        with h5py.File(tmp_path / "adjoint.h5") as file:
            bars = adjoint_by_hand()[0][::3]
            np.testing.assert_allclose(file["sweep0/u"], bars, rtol=1e-13, atol=1e-15)


def test_each_sweep_has_a_group(tmp_path: Path) -> None:
    """A second pullback, the items of a sum; not the scans inside of a step."""
    u, path = np.ones(SIZE), tmp_path / "adjoint.h5"
    _, pullback = bs.vjp(linear(bs.Checkpointing(snapshots=3)), u)
    with bs.record_adjoint(path, every=4, fields=["v"]):
        pullback(np.float64(1))
        pullback(np.float64(2))
        bs.grad(lambda u: bs.sum_over([1.0, 3.0], lambda k: linear()(k * u)))(u)
    with h5py.File(path) as file:
        assert list(file) == ["sweep0", "sweep1", "sweep2", "sweep3"]
        for key in ("v", "u_norm"):
            np.testing.assert_array_equal(file["sweep1"][key], 2 * file["sweep0"][key][()])
        assert "u" not in file["sweep3"]

    def outer(u: Any, _: Any) -> Any:
        return bs.scan(lambda u, _: (0.9 * np.sin(u), None), u, length=2)[0], None

    with bs.record_adjoint(path):
        bs.grad(lambda u: np.sum(bs.scan(outer, u, length=3)[0]))(u)
    with h5py.File(path) as file:
        assert list(file) == ["sweep0"] and file["sweep0/u"].shape == (3, SIZE)


def test_norms_alone_and_names_that_are_not_there(tmp_path: Path) -> None:
    def loss(u: Any) -> Any:
        step = lambda c, _: ({"a": c["b"], "b": 0.5 * c["a"]}, None)  # noqa: E731
        return np.sum(bs.scan(step, {"a": u, "b": u}, length=3)[0]["a"])

    path = tmp_path / "adjoint.h5"
    with bs.record_adjoint(path, fields=()):
        bs.grad(loss)(np.ones(3))
    with h5py.File(path) as file:
        assert set(file["sweep0"]) == {"step", "carry0_norm", "carry1_norm"}


def test_wrong_use(tmp_path: Path) -> None:
    u, path = np.ones(SIZE), tmp_path / "adjoint.h5"
    with (
        bs.record_adjoint(path, fields=["u", "pressure"]),
        pytest.raises(RecordError, match=r"no cotangent of a field 'pressure'; known are: u, v"),
    ):
        bs.grad(linear())(u)
    assert not path.exists()
    for every in (0, -1, 1.5, True):
        with pytest.raises(RecordError, match="1 or more"), bs.record_adjoint(path, every=every):
            pass
    other = tmp_path / "results.h5"
    other.write_bytes(b"precious")
    with pytest.raises(ResultError, match="no record of adjoints"), bs.record_adjoint(other):
        pass
    assert other.read_bytes() == b"precious"
    with (
        pytest.raises(ResultError, match="missing"),
        bs.record_adjoint(tmp_path / "nowhere" / "adjoint.h5"),
    ):
        pass
    bs.grad(linear())(u)
    assert not path.exists()  # nothing is recorded after the block


class _Once(Event):
    """Keeps the durable point that is offered when `end` is below a step."""

    def __init__(self, below: int, saved: Point | None = None) -> None:
        self.below, self.saved, self.kept = below, saved, None

    def point(self) -> Point | None:
        return self.saved

    def offer(self, capture: Any) -> None:
        notes, arrays = capture()
        if self.kept is None and notes.get("end", self.below) < self.below:
            self.kept = Point(notes, {k: np.array(a) for k, a in arrays.items()})


@pytest.mark.parametrize("no_jit", ["0", "1"])
def test_a_resumed_sweep_goes_on_in_its_rows(
    no_jit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", no_jit)
    reverse, path, u = scan_module.run_scan_reverse, tmp_path / "adjoint.h5", np.ones(SIZE)
    event = _Once(below=12)

    def with_event(params: Any, args: Any, _: Any, watch: Any = None) -> Any:
        return reverse(params, args, event, watch)

    loss = linear(bs.Checkpointing(snapshots=4))
    monkeypatch.setattr("backsweep.runtime.execute.run_scan_reverse", with_event)
    with bs.record_adjoint(path):
        expected = bs.grad(loss)(u)
    assert event.kept is not None
    end = int(event.kept.notes["end"])
    with h5py.File(path, "r+") as file:
        complete = file["sweep0/u"][()]
        file["sweep0/u"][: end + 1] = 0  # the kill came between the point and the record
        file["sweep0/u_norm"][: end + 1] = np.nan
        file["sweep0/u"][end + 1 :] += 1  # to see that these rows are left alone
    event = _Once(below=-1, saved=event.kept)
    with bs.record_adjoint(path):
        np.testing.assert_array_equal(bs.grad(loss)(u), expected)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["sweep0/u"][: end + 1], complete[: end + 1])
        np.testing.assert_array_equal(file["sweep0/u"][end + 1 :], complete[end + 1 :] + 1)
        assert np.all(np.isfinite(file["sweep0/u_norm"]))


KILLED = """
import sys, numpy as np, backsweep as bs
step = lambda u, _: (0.999 * np.sin(u), None)
with bs.record_adjoint(sys.argv[1]):
    for length in (10, 20_000):
        bs.grad(lambda u: np.sum(bs.scan(step, u, length=length)[0]))(np.ones(100))
"""


def _norms(path: Path) -> np.ndarray:
    """Of the second sweep, also while it runs."""
    if not path.exists():
        return np.full(1, np.nan)
    with h5py.File(path, locking=False) as file:
        return file["sweep1/u_norm"][()] if "sweep1" in file else np.full(1, np.nan)


def test_a_kill_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "adjoint.h5"
    source = str(Path(bs.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": source, "BACKSWEEP_NO_JIT": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=environment)
    try:
        while process.poll() is None:
            time.sleep(0.1)
            with contextlib.suppress(OSError, RuntimeError):  # its group is being added
                if np.isfinite(_norms(path)[-1]):
                    break
    finally:
        process.kill()
        process.wait()
    norms = _norms(path)
    n_missing = int(np.sum(np.isnan(norms)))
    assert 0 < n_missing < 20_000 and np.all(np.isfinite(norms[n_missing:]))
    with h5py.File(path) as file:
        assert np.all(np.isfinite(file["sweep0/u_norm"]))
        np.testing.assert_array_equal(np.linalg.norm(file["sweep1/u"][-1]), norms[-1])


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "os.statvfs", lambda path: type("Full", (), {"f_bavail": 1, "f_frsize": 4096})
    )
    with (
        bs.record_adjoint(tmp_path / "adjoint.h5"),
        pytest.raises(ResultError, match=r"larger every="),
    ):
        bs.grad(linear())(np.ones(SIZE))
    assert not list(tmp_path.iterdir())
