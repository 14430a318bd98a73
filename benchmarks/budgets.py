"""Disks and plans: half of the snapshots on disk against all in memory; predicted seconds.

    python -m benchmarks.budgets [--folder FOLDER]

A flame front on 512 x 512 points (an exponential per point and step): the bytes that the schedule
writes and reads, at the rate of one thread that does nothing else, take less than half of the
computing time, and are to be hidden behind it. BACKSWEEP_NUM_THREADS=1 leaves a core of two to the
disk; with two threads the copies to and from the page cache take their time from the steps.
Then five problems, the time of whose gradient is predicted from trial steps before it is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.rows import Row, make_parser, run_script

SHAPE, N_STEPS, N_SNAPSHOTS = (512, 512), 1000, 20
SLOT = 2 * SHAPE[0] * SHAPE[1] * 4


def make_flame(checkpointing: Any, n_steps: int = N_STEPS) -> tuple[Callable[..., Any], Any]:
    """Fuel and temperature; the control is the fuel at the start."""
    import backsweep as bs

    fuel = np.ones(SHAPE, np.float32)
    heat = np.full(SHAPE, 0.1, np.float32)
    heat[:, :20] = 1.0

    def spread(f: Any) -> Any:
        sides = f[2:, 1:-1] + f[:-2, 1:-1] + f[1:-1, 2:] + f[1:-1, :-2]
        return 0.2 * (sides - 4 * f[1:-1, 1:-1])

    def step(state: Any, _: Any) -> Any:
        fuel, heat = state
        burnt = 0.05 * fuel[1:-1, 1:-1] * np.exp(2 - 2 / heat[1:-1, 1:-1])
        less, more = fuel.copy(), heat.copy()
        less[1:-1, 1:-1] += 0.3 * spread(fuel) - burnt
        more[1:-1, 1:-1] += spread(heat) + burnt
        return (less, more), None

    def loss(fuel: Any) -> Any:
        (_, last), _ = bs.scan(step, (fuel, heat), length=n_steps, checkpointing=checkpointing)
        return np.sum(last[:, 256] ** 2)

    return loss, fuel


def make_gradient(folder: str | None, n_in_memory: int | None) -> Work:
    import backsweep as bs

    directory = tempfile.TemporaryDirectory(dir=folder)
    checkpointing = bs.Checkpointing(snapshots=N_SNAPSHOTS)
    if n_in_memory is not None:
        checkpointing = bs.Checkpointing(
            snapshots=N_SNAPSHOTS, memory=n_in_memory * SLOT, disk="20 GB", directory=directory.name
        )
    loss, fuel = make_flame(checkpointing)
    gradient = bs.value_and_grad(loss, has_report=True)

    # `directory` is kept by the closure for as long as the contestant's process lives.
    def work(directory: Any = directory) -> Any:
        value, found, report = gradient(fuel)
        (scan,) = report.scans
        print(
            f"    {scan.n_disk_writes} written, {scan.n_disk_reads} read, waited "
            f"{scan.disk_wait_seconds:.3f} s of {report.seconds:.3f} s",
            flush=True,
        )
        return value, found

    return work


def n_transfers() -> int:
    """Snapshots that the schedule writes and reads where half of them are on disk."""
    from backsweep.runtime.choose import disk_transfers

    return int(disk_transfers(N_STEPS, N_SNAPSHOTS // 2 - 1, N_SNAPSHOTS // 2))


def transfer_seconds(folder: str | None, repeats: int) -> float:
    """Of a snapshot of the flame that the store writes or reads, while nothing is computed."""
    from backsweep.storage import Layout
    from backsweep.storage.hdf5 import HDF5Store

    states = [[np.full(SHAPE, k + j, np.float32) for j in (0.5, 0.25)] for k in range(8)]
    layout = Layout(("fuel", "heat"), (SHAPE, SHAPE), ("f4", "f4"))
    seconds, n = [], N_SNAPSHOTS // 2
    with tempfile.TemporaryDirectory(dir=folder) as name, HDF5Store(name, layout) as store:
        for turn in range(repeats + 1):
            begin = time.perf_counter()
            for k in range(turn * n, turn * n + n):
                store.put(k, states[k % 8])
                store.get(k, states[(k + 4) % 8])
                if k >= n:
                    store.delete(k - n)
            seconds.append((time.perf_counter() - begin) / (2 * n))
    return statistics.median(seconds[1:])


def problems() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Five gradients of different shape."""
    import backsweep as bs
    from benchmarks.problems import Acoustic, Bloch, Heat
    from benchmarks.programs import make_acoustic, make_bloch, make_heat

    acoustic, bloch, heat = Acoustic(), Bloch(), Heat()
    binomial = bs.Checkpointing(memory="60 MB")
    return {
        "acoustic, all states": (
            make_acoustic(acoustic, bs.Checkpointing(schedule="store_all"))[1],
            (acoustic.c2, acoustic.observed),
        ),
        "acoustic, 60 MB": (make_acoustic(acoustic, binomial)[1], (acoustic.c2, acoustic.observed)),
        "Bloch": (make_bloch(bloch), bloch.waveforms),
        "heat, 20 MB": (
            make_heat(heat, bs.Checkpointing(memory="20 MB"))[1],
            (heat.initial(),),
        ),
        "flame, 20 snapshots": (
            lambda fuel: make_flame(bs.Checkpointing(snapshots=N_SNAPSHOTS))[0](fuel),
            (np.ones(SHAPE, np.float32),),
        ),
    }


def predict(repeats: int) -> Iterator[Row]:
    """Measured over predicted seconds."""
    import backsweep as bs

    for name, (loss, args) in problems().items():
        bs.value_and_grad(loss)(*args)
        predicted = bs.plan(loss, measure=True)(*args).seconds
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            bs.value_and_grad(loss)(*args)
            times.append(time.perf_counter() - begin)
        measured = statistics.median(times)
        ratio = max(measured / predicted, predicted / measured)
        yield Row(
            name, "factor between measured and predicted time", ratio, 1.25,
            seconds={"predicted": predicted, "measured": measured},
        )  # fmt: skip


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    folder = arguments.folder
    contestants = (
        Contestant("all in memory", partial(make_gradient, folder, None), 0.0),
        # Three more states for the buffers of the disk.
        Contestant("half on disk", partial(make_gradient, folder, N_SNAPSHOTS // 2 + 3), 0.0),
        Contestant("all on disk", partial(make_gradient, folder, 0), 0.0),
    )
    work = f"flame gradient, {N_SNAPSHOTS} snapshots of {SLOT >> 20} MiB"
    results = run_row(work, contestants, arguments.repeat)
    row = report_ratio(work, results, "half on disk", ["all in memory"], 1.05)
    seconds = n_transfers() * transfer_seconds(folder, 4 * arguments.repeat)
    part = f"{seconds / row.seconds['all in memory']:.2f}"
    print(f"  {n_transfers()} transfers at the store's rate: {part} of the time of all in memory")
    yield replace(row, remark=f"its transfers at the store's rate take {part} of the time")
    yield report_ratio(work, results, "all on disk", ["all in memory"], None)
    for row in predict(arguments.repeat):
        print(row, flush=True)
        yield row


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--folder", help="where the files go")
    run_script(measure_rows, parser)
