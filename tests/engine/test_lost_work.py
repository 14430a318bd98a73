"""How much of its work a killed gradient loses: what docs/checkpointing.md and a plan promise."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import logged_steps
import pytest
import resumable

import backsweep as bs
from backsweep.storage.manifest import read_manifest

INTERVAL = 0.3
PIECE = 1.0
"""Seconds between two pauses. Half a second is meant; twice of that where the machine slows down,
or where steps are reversed in a call whose length was found by advances."""


@dataclass
class Life:
    """What one process did.

    Attributes
    ----------
    advanced, reversed : int
        Steps.
    lost_advances, lost_reverses : int
        Of these, what came after the newest durable point.
    lost_seconds : float
        Of computing, since the newest durable point that is further than where it began.
    advance : float
        Seconds of a step in those calls of compiled code that only advanced; 0 if none did.
    """

    is_over: bool = False
    advanced: int = 0
    reversed: int = 0
    lost_advances: int = 0
    lost_reverses: int = 0
    lost_seconds: float = 0.0
    advance: float = 0.0


def live(folder: Path, log: Path, settings: dict[str, Any], seconds: float | None) -> Life:
    """One process, killed after some seconds of computing if it was not over before."""
    process = subprocess.Popen(
        [sys.executable, logged_steps.__file__, str(folder), str(log), json.dumps(settings)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"BACKSWEEP_NUM_THREADS": "1"},
    )
    if seconds is not None:
        # Starting Python and loading compiled code is nothing that it could lose.
        end = time.monotonic() + 60
        while not (log.exists() and "steps" in log.read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, -signal.SIGKILL)
    return read_life(log, newest(folder), usage.ru_utime + usage.ru_stime)


def newest(folder: Path) -> int:
    """The generation that the next process goes on from; 0 for none."""
    manifest = read_manifest(folder / "manifest.json")
    if manifest is not None:
        return manifest.generations[0].number
    return max((int(p.stem[6:]) for p in folder.glob("point-*.h5")), default=0)


def read_life(log: Path, generation: int, end: float) -> Life:
    """From its log, the newest generation, and its seconds of computing when it ended."""
    life, durable, since, where = Life(), (0, 0), None, None
    only_advanced = [0.0, 0]
    for kind, seconds, *about in map(json.loads, log.read_text().splitlines()):
        if kind == "from":
            (where,) = about
        elif kind == "steps":
            *steps, own = about
            if steps[0] > life.advanced and steps[1] == life.reversed:
                only_advanced[0] += own
                only_advanced[1] += steps[0] - life.advanced
            life.advanced, life.reversed = steps
            since = seconds if since is None else since
        elif kind == "over":
            # It may be killed before it exits: the gradient was there, no point is.
            life.is_over = generation == 0
        elif about[0] <= generation:
            durable = (life.advanced, life.reversed)
            if about[1] != where:
                since, where = seconds, about[1]
    life.advance = only_advanced[0] / max(1, only_advanced[1])
    if not life.is_over:
        life.lost_advances = life.advanced - durable[0]
        life.lost_reverses = life.reversed - durable[1]
        life.lost_seconds = end - (since if since is not None else end)
    return life


def lives_of(tmp_path: Path, settings: dict[str, Any], n_kills: int, seed: int) -> list[Life]:
    """The processes that one gradient takes; the first `n_kills` are killed."""
    rng = random.Random(seed)
    # Compiles, so that what is killed does not.
    warm = settings | {"n_steps": 100}
    assert live(tmp_path / "points", tmp_path / "warm", warm, None).is_over
    lives: list[Life] = []
    while not (lives and lives[-1].is_over):
        seconds = rng.uniform(0.0, 1.5) if len(lives) < n_kills else None
        lives.append(live(tmp_path / "points", tmp_path / f"log{len(lives)}", settings, seconds))
    return lives


def check_losses(
    tmp_path: Path, n_steps: int, budget: dict[str, Any], n_kills: int, seed: int
) -> int:
    """Kill a gradient; compare what it took with what it would have taken, and with the plan.

    What a process has done since its newest durable point took it at most the interval and one
    call of compiled code, for the clock is looked at between calls. To that comes the rebuild:
    snapshots in memory are gone, and the steps before the point are advanced once more; the plan
    prints how many these may be. A point that a process makes before it has come further than the
    one it began with does not count, because the next process has to rebuild again.

    Seconds are those of computing (CPU, one thread): other processes on a busy machine take none
    of them. That a run which goes on finds no worse way than the one that was killed shows in the
    steps of all processes together: those of a run that is not killed, what was done after the
    last points, and a rebuild for each kill.
    """
    request = bs.Checkpointing(directory="never", resume=True, **budget)
    gradient = bs.plan(resumable.make_loss(request, n_steps), (0, 1, 2))
    plan = gradient(*resumable.arguments(n_steps))
    rebuild = sum(scan.rebuild_advances for scan in plan.scans)
    lives = lives_of(tmp_path, budget | {"n_steps": n_steps, "interval": INTERVAL}, n_kills, seed)
    killed = [life for life in lives if not life.is_over]
    slowest = max(life.advance for life in lives)
    for life in killed:
        assert life.lost_seconds <= INTERVAL + PIECE + rebuild * slowest, life
    assert sum(life.reversed - life.lost_reverses for life in lives) == plan.n_reverses
    lost = sum(life.lost_advances for life in killed)
    n_advances = sum(life.advanced for life in lives)
    print(
        f"{len(killed)} kills, lost {sorted(round(life.lost_seconds, 2) for life in killed)} s, "
        f"rebuild {rebuild} advances or {rebuild * slowest:.2f} s; {n_advances} advances, planned "
        f"{plan.n_advances}, after points {lost}"
    )
    assert n_advances <= plan.n_advances + lost + len(killed) * rebuild
    return len(killed)


@pytest.mark.slow_all
def test_a_few_kills(tmp_path: Path) -> None:
    assert check_losses(tmp_path, 200_000, {"snapshots": 12}, 4, 1) == 4


@pytest.mark.faults
@pytest.mark.parametrize(
    ("n_steps", "budget"),
    [
        (200_000, {"snapshots": 12}),
        (60_000, {"snapshots": 3}),
        (30_000, {"memory": "20 GB"}),
        (20_000, {"memory": 0, "disk": "1 GB", "snapshots": 12}),
    ],
    ids=["binomial", "few snapshots", "all states", "disk"],
)
def test_twenty_kills(n_steps: int, budget: dict[str, Any], tmp_path: Path) -> None:
    n_kills = seed = 0
    while n_kills < 20:
        seed += 1
        folder = tmp_path / str(seed)
        folder.mkdir()
        n_kills += check_losses(folder, n_steps, budget, 20 - n_kills, seed)
