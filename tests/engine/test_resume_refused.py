"""What a folder of resume points is not used for, and what is told about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resumable

import backsweep as bs
from backsweep.errors import ResumeError, ScheduleError, SnapshotError, Stopped
from backsweep.runtime import journal, stop

U, A = np.linspace(0.1, 1, 9), np.full(9, 1e-3)


def make_loss(request: Any, power: int = 2, n: int = 200) -> Any:
    def loss(u: Any, a: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return u + a * np.roll(u, 1) ** power, None

        return np.sum(bs.scan(step, u, length=n, checkpointing=request)[0] ** 2)

    return loss


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a stopped gradient has left."""
    folder = tmp_path / "points"
    is_due = journal.Journal._is_due

    def signalled(self: journal.Journal) -> bool:
        stop._note(signal.SIGTERM, None)
        return is_due(self)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "_is_due", signalled)
        with pytest.raises(Stopped, match="SIGTERM received: stopped; .*points"):
            bs.grad(make_loss(request_of(folder)), (0, 1))(U, A)
    assert (folder / "manifest.json").is_file()
    return folder


def request_of(folder: Path, **more: Any) -> bs.Checkpointing:
    return bs.Checkpointing(directory=str(folder), resume=True, **more)


def expected() -> Any:
    return bs.grad(make_loss(None), (0, 1))(U, A)


def test_other_inputs(left: Path) -> None:
    gradient = bs.grad(make_loss(request_of(left)), (0, 1))
    with pytest.raises(ResumeError, match=r"another computation: 'input 1 a' was '\w+"):
        gradient(U, 2 * A)
    assert all(map(np.array_equal, gradient(U, A), expected()))
    assert not left.exists()


def test_another_program(left: Path) -> None:
    with pytest.raises(ResumeError, match="'program' was .* fresh=True"):
        bs.grad(make_loss(request_of(left), power=3), (0, 1))(U, A)
    with pytest.raises(ResumeError, match="'program'"):
        bs.grad(make_loss(request_of(left), n=201), (0, 1))(U, A)
    found = bs.grad(make_loss(request_of(left, fresh=True), power=3), (0, 1))(U, A)
    assert all(map(np.array_equal, found, bs.grad(make_loss(None, 3), (0, 1))(U, A)))
    assert not left.exists()


def test_another_version(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "__version__", "99.0")
    with pytest.raises(ResumeError, match=r"'backsweep' was '[0-9.]+', is '99.0'"):
        bs.grad(make_loss(request_of(left)), (0, 1))(U, A)


def test_how_it_is_run_does_not_matter(left: Path) -> None:
    request = request_of(left, memory=0, disk="1 MB", snapshots=4)
    found, report = bs.value_and_grad(make_loss(request), (0, 1), has_report=True)(U, A)[1:]
    assert all(map(np.array_equal, found, expected()))
    assert "of 200" in report.scans[0].resumed_at


def test_only_whole_gradients(tmp_path: Path) -> None:
    loss = make_loss(request_of(tmp_path))
    for call in (lambda: bs.vjp(loss, U, A), lambda: bs.linearize(loss, U, A)):
        with pytest.raises(ScheduleError, match="resume=True is for grad and value_and_grad"):
            call()
    gradient, product = bs.hvp(loss, (U, A), (U, A))
    assert all(map(np.array_equal, gradient, expected()))
    assert product[0].shape == U.shape and list(tmp_path.iterdir()) == []


def test_one_folder_for_one_gradient(tmp_path: Path) -> None:
    one, two = (make_loss(request_of(tmp_path / name)) for name in "ab")
    with pytest.raises(ScheduleError, match="several folders"):
        bs.grad(lambda u: one(u, A) + two(u, A))(U)


def test_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, resumable.__file__, str(tmp_path)]
    first = subprocess.Popen([*command, json.dumps({"n_steps": 200_000})], env=os.environ)
    try:
        while not (tmp_path / "manifest.json").exists():
            assert first.poll() is None
        second = subprocess.run(
            [*command, json.dumps({"n_steps": 200_000})], capture_output=True, text=True
        )
        assert second.returncode != 0 and f"{first.pid}" in second.stderr
        assert "ResumeError" in second.stderr
        first.send_signal(signal.SIGUSR1)
        assert first.wait(30) == 85
    finally:
        first.kill()
        first.wait()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError, match="resume points cannot be written to the folder"):
        bs.grad(make_loss(request_of(tmp_path / "file")), (0, 1))(U, A)


class Decay:
    """A step of somebody else's."""

    def advance(self, consts: Any, u: Any, x: Any) -> Any:
        return 0.9 * u, None

    def reverse(self, consts: Any, u: Any, x: Any, u_bar: Any, y_bar: Any) -> Any:
        return None, 0.9 * u_bar, None


def test_external_steps_have_no_address_in_their_identity(tmp_path: Path) -> None:
    def labels() -> dict[str, str]:
        found: list[dict[str, str]] = []
        known = journal.identity_of

        def note(*args: Any) -> dict[str, str]:
            found.append(known(*args))
            return found[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal, "identity_of", note)
            step = bs.external_step(Decay())
            request = request_of(tmp_path)
            bs.grad(lambda u: np.sum(bs.scan(step, u, length=9, checkpointing=request)[0]))(U)
        return found[0]

    keep = [Decay() for _ in range(10)]
    assert labels() == labels() and keep
