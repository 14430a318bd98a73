"""A gradient on ranks that is stopped, killed or unlucky goes on and returns the same bits."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import resumable_blocks
from marks import MORE, more

RANKS = 4
NEVER = 1e9
SHORT: dict[str, Any] = {"n_steps": 60, "interval": NEVER, "single_steps": True}
LONG: dict[str, Any] = {"n_steps": 800, "interval": 0.05}
DISK: dict[str, Any] = {"snapshots": 5, "memory": 0, "disk": "1 GB"}
KINDS: list[dict[str, Any]] = [{"snapshots": 5}, {}, DISK, {"snapshots": 1}]
LAST_SECONDS = 10
"""In which a job must end after one of its ranks has."""


class Jobs:
    """Starts jobs, and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder / "points", folder / "told"
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self, settings: dict[str, Any], ranks: int = RANKS, **environment: str
    ) -> subprocess.Popen[str]:
        self.told.unlink(missing_ok=True)
        beside = Path(sys.executable).with_name("mpiexec")
        mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
        assert mpiexec, "there is no mpiexec: pip install 'backsweep[mpich]'"
        text = json.dumps(settings | {"tell": str(self.told)})
        script = [sys.executable, resumable_blocks.__file__, str(self.folder), text]
        source = str(Path(__file__).parents[2] / "src")
        job = subprocess.Popen(
            [mpiexec, "-n", str(ranks), *script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": source} | environment,
        )
        self.running.append(job)
        return job

    def end(self, job: subprocess.Popen[str], timeout: float = 240) -> tuple[int, Any, str]:
        """Exit code, what rank 0 found, and the errors."""
        out, err = job.communicate(timeout=timeout)
        return job.returncode, None if job.returncode else json.loads(out), err

    def run(self, settings: dict[str, Any], ranks: int = RANKS, **more: str) -> Any:
        return self.end(self.start(settings, ranks, **more))

    def pids(self, job: subprocess.Popen[str], ranks: int = RANKS) -> list[int]:
        """Of the ranks, once all have started."""
        self.wait(job, lambda: self.told.exists() and self.told.read_text().count("\n") == ranks)
        lines = [line.split() for line in self.told.read_text().splitlines()]
        return [pid for _, pid in sorted((int(rank), int(pid)) for rank, pid in lines)]

    def wait_for_a_point(self, job: subprocess.Popen[str]) -> None:
        self.wait(job, (self.folder / "manifest.json").exists)

    def wait(self, job: subprocess.Popen[str], is_so: Callable[[], bool]) -> None:
        begin = time.monotonic()
        while not is_so():
            assert job.poll() is None and time.monotonic() - begin < 200
            time.sleep(0.02)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    found = Jobs(tmp_path)
    yield found
    for job in found.running:
        if job.poll() is None:
            job.terminate()  # mpiexec ends its ranks
            job.wait(30)


def bits(found: Any) -> tuple[str, str]:
    return found["value"], found["gradient"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """What a run of so many steps finds that nothing stops."""

    @functools.cache
    def found(n_steps: int) -> Any:
        jobs = Jobs(tmp_path_factory.mktemp("expected"))
        settings = {"n_steps": n_steps, "snapshots": 20, "interval": NEVER}
        code, found, err = jobs.run(settings)
        assert code == 0 and found["left"] == [], err
        return found

    return found


def check_end(jobs: Jobs, end: Any, expected: Any) -> Any:
    code, found, err = end
    assert code == 0, err
    assert bits(found) == bits(expected)
    assert found["left"] == [] and not jobs.folder.exists()
    return found


@MORE
def test_stopped_again_and_again(jobs: Jobs, expected: Any) -> None:
    """By a signal to one rank or to all, with another budget each time."""
    for n_stops in range(20):
        who, name = (2, 0, -1, 3)[n_stops % 4], ("SIGUSR1", "SIGTERM")[n_stops % 2]
        settings = SHORT | KINDS[n_stops % 4] | {"at_pause": [who, 29, name]}
        end = jobs.run(settings, BACKSWEEP_NUM_THREADS="12"[n_stops % 2])
        if end[0] == 0:
            break
        assert end[0] == 85, end[2]
        assert not end[2], "MPI complains of something"
    check_end(jobs, end, expected(60))
    assert n_stops >= 3


@pytest.mark.slow
@pytest.mark.parametrize("who", ["one", more("all")])
def test_signals_from_outside(who: str, jobs: Jobs, expected: Any) -> None:
    whole = expected(LONG["n_steps"])
    job = jobs.start(LONG | {"snapshots": 20})
    pids = jobs.pids(job)
    jobs.wait_for_a_point(job)
    begin = time.monotonic()
    for pid in pids if who == "all" else pids[1:2]:
        os.kill(pid, signal.SIGTERM)
    code, _, err = jobs.end(job)
    assert code == 85, err
    assert time.monotonic() - begin < LAST_SECONDS
    found = check_end(jobs, jobs.run(LONG | {"snapshots": 20}), whole)
    assert any(found["resumed"]) or found["advances"] < whole["advances"], "something was kept"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[(85, 0)], more([(40, 2), (60, 0)])], ids=len)
def test_a_rank_is_killed(kills: list[tuple[int, int]], jobs: Jobs, expected: Any) -> None:
    """In the reverse sweep; in the forward sweep, and again after it has gone on."""
    for pause, who in kills:
        settings = SHORT | {"snapshots": 5, "interval": 0.01}
        job = jobs.start(settings | {"at_pause": [who, pause, "SIGKILL"]})
        jobs.wait_for_a_point(job)
        begin = time.monotonic()
        assert jobs.end(job)[0] != 0
        assert time.monotonic() - begin < LAST_SECONDS + 5  # of it until the kill
    found = check_end(jobs, jobs.run(SHORT | {"snapshots": 1}), expected(60))
    assert found["resumed"][1].startswith("with the last") or found["resumed"][0]


def kill_at_random(jobs: Jobs, n_kills: int, seed: int, expected: Any) -> None:
    """Kill a rank, start with other settings and threads, kill ..."""
    rng = random.Random(seed)
    n_killed = n_finished = 0
    while n_killed < n_kills or n_finished == 0:
        settings = LONG | rng.choice([{"snapshots": 20}, {}, {"snapshots": 8}])
        job = jobs.start(settings, BACKSWEEP_NUM_THREADS=rng.choice("12"))
        if n_killed < n_kills:
            pid = jobs.pids(job)[rng.randrange(RANKS)]
            time.sleep(rng.uniform(0.0, 6.0))
            if job.poll() is None:
                begin = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                code, _, err = jobs.end(job, timeout=60)
                assert time.monotonic() - begin < LAST_SECONDS
                assert code != 0, err
                n_killed += 1
                continue
        check_end(jobs, jobs.end(job), expected)
        n_finished += 1


@MORE
def test_a_few_kills_at_random_moments(jobs: Jobs, expected: Any) -> None:
    kill_at_random(jobs, 5, 1, expected(LONG["n_steps"]))


@pytest.mark.faults
def test_kills_at_random_moments(jobs: Jobs, expected: Any) -> None:
    kill_at_random(jobs, 60, 2, expected(LONG["n_steps"]))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["at_exchange", more("at_pause")])
def test_an_error_on_one_rank_ends_the_job(what: str, jobs: Jobs) -> None:
    begin = time.monotonic()
    job = jobs.start(SHORT | {what: [1, 30, "raise"], "interval": 0.01})
    jobs.wait_for_a_point(job)
    begin = time.monotonic()
    code, _, err = jobs.end(job, timeout=60)
    assert code == 1 and "ValueError: no luck" in err
    assert time.monotonic() - begin < LAST_SECONDS + 5


def stop_in_the_reverse_sweep(jobs: Jobs, kind: dict[str, Any]) -> None:
    code, _, err = jobs.run(SHORT | kind | {"at_pause": [-1, 85, "SIGUSR1"]})
    assert code == 85, err


@pytest.mark.slow
def test_snapshots_that_one_rank_has_lost(jobs: Jobs, expected: Any) -> None:
    stop_in_the_reverse_sweep(jobs, DISK)
    found = sorted(jobs.folder.glob("*snapshot-*"))
    assert found
    next(path for path in found if "-rank-1-" in path.name).unlink()
    for path in found:
        if "-rank-2-" in path.name:
            os.truncate(path, 100)
    assert check_end(jobs, jobs.run(SHORT | DISK), expected(60))["lost"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "snapshot.before-write:4:full",
        more("point.before-rename:2:raise"),
        more("attached.after-rename:1:raise"),
    ],
)
def test_a_disk_that_fails_on_one_rank(fault: str, jobs: Jobs, expected: Any) -> None:
    settings = SHORT | DISK | {"interval": 0.1, "fault": [2, fault]}
    code, found, err = jobs.run(settings)
    assert code == 0 and bits(found) == bits(expected(60)), err
    assert "rank 2: " in err and err.count("RuntimeWarning") == 1


@MORE
def test_a_part_that_is_damaged(jobs: Jobs, expected: Any) -> None:
    """The older generation is used, where that is damaged too none is; all ranks agree."""
    job = jobs.start(SHORT | {"interval": 0.01, "at_pause": [-1, 50, "SIGUSR1"]})
    assert jobs.end(job)[0] == 85
    kept = jobs.folder.with_name("kept")
    shutil.copytree(jobs.folder, kept)
    newest, older = (
        sorted(jobs.folder.glob(f"point-*-rank-{rank}.h5"))[k] for rank, k in ((1, -1), (3, 0))
    )
    os.truncate(newest, 3000)
    end = jobs.run(SHORT)
    assert any(check_end(jobs, end, expected(60))["resumed"])
    assert end[2].count("an older is used") == 1
    shutil.copytree(kept, jobs.folder)
    os.truncate(newest, 3000)
    older.unlink()
    end = jobs.run(SHORT)
    assert not any(check_end(jobs, end, expected(60))["resumed"])
    assert end[2].count("the computation starts over") == 1


def test_what_cannot_be_resumed_is_given_up_together(jobs: Jobs) -> None:
    assert jobs.run(SHORT | {"abandons": True})[0] == 85


@MORE
def test_what_is_refused(jobs: Jobs, expected: Any) -> None:
    """Another number of ranks, a second job; on all ranks, with the difference named."""
    assert jobs.run(SHORT | {"at_pause": [1, 20, "SIGUSR1"]})[0] == 85
    code, _, err = jobs.run(SHORT, ranks=3)
    assert code == 1 and "'ranks' was '4', is '3'" in err and "MPI_Abort" not in err
    (jobs.folder / "manifest.json").unlink()  # the points say it themselves
    code, _, err = jobs.run(SHORT, ranks=3)
    assert code == 1 and "'ranks' was '4', is '3'" in err
    first = jobs.start(LONG | {"n_steps": 100_000, "fresh": True}, ranks=3)
    jobs.pids(first, 3)
    jobs.wait_for_a_point(first)
    code, _, err = jobs.run(SHORT)
    assert code == 1 and "is in use by process" in err
    first.terminate()
    first.wait(30)
    check_end(jobs, jobs.run(SHORT | {"fresh": True}), expected(60))


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    "point",
    [
        f"{what}.{moment}"
        for what in ("point", "attached", "manifest")
        for moment in ("before-write", "during-write", "before-rename", "after-rename")
    ]
    + ["delete.before", "delete.after"],
)
def test_kill_at_every_point(point: str, rank: int, jobs: Jobs, expected: Any) -> None:
    for count in (1, 2, 4):
        settings = SHORT | {"snapshots": 5, "interval": 0.05}
        fault = {"fault": [rank, f"{point}:{count}:kill"]}
        begin = time.monotonic()
        code, found, err = jobs.run(settings | fault)
        assert time.monotonic() - begin < 60
        if code != 0:
            code, found, err = jobs.run(settings)
        assert code == 0, err
        assert bits(found) == bits(expected(60)) and found["left"] == []
