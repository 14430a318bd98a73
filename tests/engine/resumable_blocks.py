"""Run under mpiexec: one gradient of two scans on a grid cut into blocks, resumable.

mpiexec -n 4 python resumable_blocks.py FOLDER '{"snapshots": 20}'

Rank 0 prints a JSON line at its end. Settings that are none of `Checkpointing`: "n_steps", and for
tests "tell" (a file to which each rank appends its process number), "wait" (seconds of sleep per
step of Python), "signal" and "fail" ([rank, pause]: what happens to a rank at one of its pauses).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import backsweep as bs
from backsweep.api import derivatives
from backsweep.comm import Decomposition, world
from backsweep.runtime import journal, pace, sweeper
from backsweep.runtime.fingerprint import fingerprint

N = 24


def make_loss(request: bs.Checkpointing | None, n_steps: int) -> Any:
    """A spin-up, and a simulation that goes on from its end; records and controls per step."""
    iz, ix = np.array([3, 12, N - 2]), np.array([4, 5, N // 2])

    def loss(c: Any, sources: Any) -> Any:
        def step(carry: Any, s: Any) -> Any:
            u, before = carry
            v = 2 * u - before + 0.1 * (np.roll(u, 1, axis=1) + np.roll(u, -1, axis=1) - 2 * u)
            v[1:-1] += c[1:-1] * (u[2:] + u[:-2] - 2 * u[1:-1]) - 1e-2 * u[1:-1] ** 3
            v[8, 8] += s
            return (v, u), v[iz, ix]

        u = np.zeros((N, N))
        half = n_steps // 2
        carry, _ = bs.scan(step, (u, u), sources[:half], checkpointing=request)
        _, ys = bs.scan(step, carry, sources[half:], checkpointing=request)
        return 0.5 * np.sum((ys - 1.0) ** 2)

    return loss


def arguments(n_steps: int) -> tuple[Any, ...]:
    c = 0.2 + 0.1 * np.random.default_rng(0).random((N, N))
    return c, 0.1 * np.cos(np.arange(n_steps) / 50)


def arrange(settings: dict[str, Any], rank: int) -> None:
    """What a test wants to happen to this rank."""
    steps = settings.pop("steps_per_call", None)
    if steps is not None:
        pace.MAX_SECONDS_PER_CALL = 0.0 if steps == 1 else 1e-9
        sweeper.FIRST_CALL_OPERATIONS = 1
    told = settings.pop("tell", None)
    if told is not None:
        with open(told, "a") as file:
            file.write(f"{rank} {os.getpid()}\n")
    events = {what: settings.pop(what, None) for what in ("signal", "fail")}
    left = {what: event[1] for what, event in events.items() if event and event[0] in (rank, -1)}
    due = journal.Journal._is_due

    def is_due(self: journal.Journal) -> bool:
        for what in left:
            left[what] -= 1
            if left[what] == 0 and what == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
            elif left[what] == 0:
                raise ValueError(f"no luck on rank {rank}")
        return due(self)

    journal.Journal._is_due = is_due  # type: ignore[method-assign]


def main(folder: str, settings: dict[str, Any]) -> None:
    comm = world()
    n_steps = settings.pop("n_steps", 2000)
    axes = settings.pop("axes", 0)
    arrange(settings, comm.rank)
    request = bs.Checkpointing(directory=folder, resume=True, **{"interval": 0.05} | settings)
    c, sources = arguments(n_steps)
    begin = time.perf_counter()
    derivatives._complete = lambda *args: None  # fingerprints of blocks are taken here
    gradient = bs.value_and_grad(
        make_loss(request, n_steps),
        (0, 1),
        has_report=True,
        decomposition=Decomposition(c.shape, axes, comm),
    )
    value, (c_bar, sources_bar), report = gradient(c, sources)
    whole = c_bar.gather()
    if comm.is_root:
        found = {
            "value": float(value).hex(),
            "gradient": fingerprint([whole, np.asarray(sources_bar)]),
            "advances": report.n_advances,
            "seconds": time.perf_counter() - begin,
            "resumed": [s.resumed_at for s in report.scans],
            "disk": sum(s.n_disk_writes + s.n_disk_reads for s in report.scans),
            "lost": sum(s.n_lost for s in report.scans),
            "left": sorted(p.name for p in Path(folder).glob("*")),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
