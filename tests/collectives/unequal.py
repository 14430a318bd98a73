"""Ranks whose steps, code or cotangents differ, and one whose collective fails in compiled code."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import Any

import numpy as np

import backsweep as bs
from backsweep.comm import Decomposition, HaloExchange, allreduce_sum, halo_exchange
from backsweep.runtime import executor
from collectives.compiled import said_by_all, small_problem


def handed_on_by_some(comm: Any) -> list[str]:
    """Cotangents that begin at zero on one rank may be handed on there, and not elsewhere."""
    dec, wrong = Decomposition((11,), comm=comm, periodic=True), []
    first, last = dec.block()[0]

    def whole(c: Any, u0: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, old = carry
            return (2 * u - old + c * (np.roll(u, 1) + np.roll(u, -1) - 2 * u), u), None

        (u, _), _ = bs.scan(step, (u0, 0.9 * u0), length=6)
        return np.sum(u[:3] ** 2)

    def local(c: Any, u0: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, old = carry
            u = halo_exchange(u, dec)
            own, new = u[1:-1], np.zeros_like(u)
            new[1:-1] = 2 * own - old[1:-1] + c * (u[2:] + u[:-2] - 2 * own)
            return (new, u), None

        u = np.zeros(last - first + 2, like=u0)
        u[1:-1] = u0
        (u, _), _ = bs.scan(step, (u, 0.9 * u), length=6)
        return allreduce_sum(np.sum(u[1:-1] ** 2 * (np.arange(first, last) < 3)), comm)

    args = np.linspace(0.1, 0.2, 11), np.cos(np.arange(11.0))
    expected = bs.grad(whole, (0, 1))(*args)
    own = [a[first:last] for a in args]
    _, pullback = bs.vjp(local, *own, placement="varying")
    for scale in (1.0, 2.0):
        for a, b in zip(pullback(scale), expected, strict=True):
            gap = np.max(np.abs(a - scale * b[first:last]), initial=0) / np.max(np.abs(b))
            wrong += [] if gap <= 1e-13 else [f"{scale}: differs by {gap:.1e}"]
    return said_by_all(comm, wrong)


def other_requests(comm: Any) -> list[str]:
    """Scans that share a budget on one rank and not on another are planned in one order."""
    n = [4, 5, 4] if comm.rank else [3, 3, 2]
    budgets = [bs.Checkpointing(snapshots=k) for k in n]

    def loss(u: Any) -> Any:
        total = 0.0
        for k, budget in enumerate(budgets):
            step = lambda u, _, k=k: (np.sin(u + 0.1 * k * allreduce_sum(u, comm)), None)  # noqa: E731
            v, _ = bs.scan(step, u, length=9 + k, checkpointing=budget)
            total = total + np.sum(v**2)
        return allreduce_sum(total, comm)

    how = {"placement": "varying", "has_report": True}
    _, found, report = bs.value_and_grad(loss, **how)(np.cos(np.arange(3.0) + comm.rank))
    budgets = [None] * 3
    _, expected, _ = bs.value_and_grad(loss, **how)(np.cos(np.arange(3.0) + comm.rank))
    wrong = [] if np.array_equal(found, expected) else ["other bits"]
    kept = [s.n_snapshots for s in report.scans]
    return said_by_all(comm, wrong if kept == [3, 3, 2] else [*wrong, f"snapshots: {kept}"])


def not_on_one(comm: Any) -> list[str]:
    """Where the code of one rank is not to be had, or calls others, Python runs that of all."""

    def loss(u: Any, s: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            total = allreduce_sum(u, comm)
            if comm.rank == comm.size - 1:
                total = bs.while_loop(lambda v: np.sum(v) > 1e9, lambda v: 0.5 * v, total)
            return 0.5 * u + s * np.roll(total, 1), None

        u, _ = bs.scan(step, u, length=3)
        return allreduce_sum(np.sum(u**2), comm)

    how = {"placement": ("varying", "replicated"), "has_report": True}
    _, _, report = bs.value_and_grad(loss, **how)(np.ones(4), 0.1)
    found = [report.scans[0].executor]
    problem = small_problem(comm)
    expected = problem.expected()
    for first in (0, 1):
        with _misread(comm, first):
            result, who = problem.run()
        found.append(who)
        if not (gap := problem.gap(result, expected)) <= 1e-13:
            found.append(f"{who}: {gap:.1e} from one process")
    other = "(compiled code would call collectives in another order than the step)"
    says = [
        "python (there is a while_loop inside the step)",
        f"python {other}",
        f"native, then python {other}",
    ]
    return said_by_all(comm, [] if found == says else found)


@contextmanager
def _misread(comm: Any, first: int) -> Any:
    """As if from some look on the last rank's code had no collective."""
    whole, looks = executor.called_by, []

    def misread(source: Any) -> Any:
        looks.append(source)
        return () if comm.rank == comm.size - 1 and len(looks) > first else whole(source)

    executor.called_by = misread
    try:
        yield
    finally:
        executor.called_by = whole


def one_raises_compiled(comm: Any) -> list[str]:
    """A collective that fails on one rank, in the middle of compiled code."""
    whole, calls = HaloExchange.prepared, []

    def prepared(self: Any, arrays: Any) -> Any:
        made = whole(self, arrays)
        finish = made.finish

        def failing() -> None:
            calls.append(1)
            if comm.rank == comm.size - 1 and len(calls) == 3:
                raise OSError("the network is gone")
            finish()

        made.finish = failing
        return made

    HaloExchange.prepared = prepared
    small_problem(comm).run()
    return ["was not refused"]


def interrupted(comm: Any) -> list[str]:
    """Ctrl-C is raised behind the call; Python would lose it as compiled code calls back."""
    u0 = np.linspace(0, 1, 4000)

    def step(u: Any, _: Any) -> Any:
        return 0.5 * u + 1e-4 * allreduce_sum(np.sum(u), comm=comm), None

    def run() -> Any:
        return bs.scan(step, u0, length=60_000)[0]

    run()
    begin = time.perf_counter()
    expected = run()
    seconds, n_raised, parts = time.perf_counter() - begin, 0, (0.2, 0.4, 0.6, 0.8)
    for part in parts:
        timer = threading.Timer(part * seconds, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            run()
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            n_raised += 1
        timer.join()
    is_right = n_raised == len(parts) and np.array_equal(run(), expected)
    return [] if is_right else [f"{n_raised} of {len(parts)} were raised"]
