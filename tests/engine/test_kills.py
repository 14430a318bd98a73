"""Processes that are really killed, and started again, until the gradient is there.

The normal run has a few kills; `make test-faults` has 100 at random moments and every named point.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import resumable

from backsweep.storage.faults import POINTS

SETTINGS: list[dict[str, Any]] = [
    {"memory": "1 MB"},
    {},
    {"memory": "150 kB", "disk": "1 GB", "snapshots": 30},
    {"memory": "600 kB", "disk": "1 GB", "snapshots": 50},
    {"memory": 0, "disk": "100 MB", "snapshots": 20},
    {"snapshots": 7, "schedule": "online"},
]


def start(folder: Path, settings: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, resumable.__file__, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What the process printed; None if it was killed. Any other end is a failure."""
    out, err = process.communicate(timeout=120)
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("expected") / "points"
    found = finish(start(folder, SETTINGS[0] | {"interval": 1e9}))
    assert found is not None
    return found["value"], found["gradient"]


def wait_for_a_point(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the process has made a durable point, or is over: machines differ in speed."""

    def stamp() -> int:
        with suppress(OSError):
            return (folder / "manifest.json").stat().st_mtime_ns
        return 0

    before = stamp()
    while process.poll() is None and stamp() == before:
        time.sleep(0.005)


def kill_at_random(folder: Path, n_kills: int, seed: int, expected: Any) -> None:
    """Kill, start with other settings and threads, kill ...; most of them after a point."""
    rng = random.Random(seed)
    done = n_finished = n_resumed = 0
    while done < n_kills or n_finished == 0:
        settings = rng.choice(SETTINGS)
        process = start(folder, settings, BACKSWEEP_NUM_THREADS=rng.choice("12"))
        if done < n_kills:
            is_late = rng.random() < 0.8
            if is_late:
                wait_for_a_point(process, folder)
            time.sleep(rng.uniform(0, 0.4 if is_late else 2.0))
            process.kill()
            done += 1
        found = finish(process)
        if found is not None:
            assert (found["value"], found["gradient"]) == expected, settings
            assert found["left"] == [] and not folder.exists()
            n_finished += 1
            n_resumed += any(found["resumed"])
    assert n_resumed > 0


@pytest.mark.slow
def test_a_few_kills_at_random_moments(tmp_path: Path, expected: tuple[str, str]) -> None:
    kill_at_random(tmp_path / "points", 4, 1, expected)


@pytest.mark.faults
def test_kills_at_random_moments(tmp_path: Path, expected: tuple[str, str]) -> None:
    kill_at_random(tmp_path / "points", 100, 2, expected)


def check_point(point: str, count: int, folder: Path, expected: tuple[str, str]) -> bool:
    """Kill when a point is reached; whether it was."""
    settings = {"memory": "150 kB", "disk": "1 GB", "snapshots": 30}
    process = start(folder, settings, BACKSWEEP_FAULT=f"{point}:{count}:kill")
    found = finish(process)
    was_killed = found is None
    if found is None:
        found = finish(start(folder, settings))
    assert found is not None
    assert (found["value"], found["gradient"]) == expected
    assert found["left"] == []
    return was_killed


def passed(point: str) -> bool:
    """Whether a gradient comes to it; results and records are what an inversion writes."""
    return not point.startswith(("result.", "record."))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["manifest.after-rename", "delete.after"])
def test_kill_at_some_points(point: str, tmp_path: Path, expected: tuple[str, str]) -> None:
    assert check_point(point, 3, tmp_path / "points", expected)


@pytest.mark.faults
@pytest.mark.parametrize("point", [p for p in POINTS if passed(p)])
def test_kill_at_every_point(point: str, tmp_path: Path, expected: tuple[str, str]) -> None:
    killed = [check_point(point, n, tmp_path / f"points{n}", expected) for n in (1, 2, 7)]
    assert killed[0]


@pytest.mark.faults
@pytest.mark.parametrize("action", ["raise", "full"])
@pytest.mark.parametrize("point", [p for p in POINTS if passed(p)])
def test_failures_at_every_point(
    point: str, action: str, tmp_path: Path, expected: tuple[str, str]
) -> None:
    """Disks that fail once: the run goes on, with what it has."""
    settings = {"memory": "150 kB", "disk": "1 GB", "snapshots": 30}
    process = start(
        tmp_path / "points",
        settings,
        BACKSWEEP_FAULT=f"{point}:2:{action}",
        PYTHONWARNINGS="ignore",
    )
    found = finish(process)
    assert found is not None
    assert (found["value"], found["gradient"]) == expected
