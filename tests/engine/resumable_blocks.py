"""Run under mpiexec: one gradient of two scans on a grid cut into blocks, resumable.

mpiexec -n 4 python resumable_blocks.py FOLDER '{"snapshots": 20}'

Rank 0 prints a JSON line at its end. Settings that are none of `Checkpointing`: "n_steps", "axes",
"single_steps" (a pause after each step), "tell" (a file to which each rank appends its process
number), "abandons", and what happens to a rank (-1: to all): "at_pause" and "at_exchange" ([rank,
number, name of a signal or "raise"]), "fault" ([rank, BACKSWEEP_FAULT]).
"""

from __future__ import annotations

import itertools
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
from backsweep.comm import Decomposition, HaloExchange, world
from backsweep.runtime import journal, pace, stop, sweeper
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
    if settings.pop("single_steps", False):
        pace.MAX_SECONDS_PER_CALL, sweeper.FIRST_CALL_OPERATIONS = 0.0, 1
    told = settings.pop("tell", None)
    if told is not None:
        with open(told, "a") as file:
            file.write(f"{rank} {os.getpid()}\n")
    fault = settings.pop("fault", None)
    if fault is not None and fault[0] == rank:
        os.environ["BACKSWEEP_FAULT"] = fault[1]
    at_pause, at_exchange = settings.pop("at_pause", None), settings.pop("at_exchange", None)
    if at_pause is not None and at_pause[0] in (rank, -1):
        act_at(journal.Journal, "_is_due", *at_pause[1:])
    if at_exchange is not None and at_exchange[0] == rank:
        act_at(HaloExchange, "begin", *at_exchange[1:])


def act_at(owner: type, name: str, count: int, action: str) -> None:
    """Have something happen at the n-th call of a method."""
    method, calls = getattr(owner, name), itertools.count(1)

    def counted(*args: Any) -> Any:
        if next(calls) == count:
            if action == "raise":
                raise ValueError("no luck")
            os.kill(os.getpid(), signal.Signals[action])
        return method(*args)

    setattr(owner, name, counted)


def abandon(comm: Any, n_steps: int) -> None:
    """A signal comes to the last rank while a gradient runs that cannot be resumed."""
    c, sources = arguments(n_steps)
    gradient = bs.value_and_grad(
        make_loss(bs.Checkpointing(snapshots=5), n_steps),
        (0, 1),
        decomposition=Decomposition(c.shape, 0, comm),
    )
    with stop.watching(comm), stop.abandoning():
        if comm.rank == comm.size - 1:
            stop._note(signal.SIGUSR1, None)
        gradient(c, sources)


def main(folder: str, settings: dict[str, Any]) -> None:
    comm = world()
    n_steps = settings.pop("n_steps", 2000)
    axes = settings.pop("axes", 0)
    arrange(settings, comm.rank)
    if settings.pop("abandons", False):
        abandon(comm, n_steps)
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
