"""Shallow water, mpi4jax's example at 3600 x 1800 cells, float32: forward and gradient.

    python -m benchmarks.shallow_water [forward] [gradient] [--cells NX NY] [--steps N]

backsweep runs with two threads in one process; for the gradient also with one thread on each of two
MPI ranks, which cut the same serial step into blocks. The ranks need mpi4py and mpiexec: where this
interpreter has none, `--mpi PYTHON` names one that has; else their rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import N_THREADS
from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.problems import ShallowWater
from benchmarks.rows import Row, make_parser, run_script

GOALS = {"forward": 0.7, "gradient": 0.5}

#: Of the gradient; and of the last h, u and v. v is 0 at first and then what differences of heights
#: leave: after 10 steps plain NumPy's in float32 is off by 2.5e-3 from that in float64.
TOLERANCE, FIELDS_TOLERANCE = 1e-4, 1e-2

IDLE_SECONDS = 2e-3


def make_backsweep(problem: ShallowWater, row: str) -> Work:
    import backsweep as bs
    from benchmarks.programs import make_shallow_water

    last, misfit = make_shallow_water(problem, bs.Checkpointing(schedule="store_all"))
    return partial(last if row == "forward" else bs.value_and_grad(misfit), problem.height)


def make_numpy(problem: ShallowWater) -> Work:
    from benchmarks.programs import run_shallow_water_in_numpy

    return partial(run_shallow_water_in_numpy, problem)


def make_jax(problem: ShallowWater, row: str, x_axis: int, remat: str | None = None) -> Work:
    from benchmarks.baselines.shallow_water_jax import ShallowWaterJax

    program = ShallowWaterJax(problem, x_axis, remat)
    return partial(program.forward if row == "forward" else program.value_and_grad, problem.height)


# ---------------------------------------------------------------------- ranks


def make_ranks(problem: ShallowWater, python: str) -> Work:
    """The gradient on as many ranks as there are threads elsewhere, in a job that waits."""
    folder = tempfile.TemporaryDirectory(prefix="backsweep-ranks-")
    options = ["--cells", problem.n_x, problem.n_y, "--steps", problem.n_steps]
    command = [str(Path(python).with_name("mpiexec")), "-n", N_THREADS, python, "-m"]
    command += ["benchmarks.shallow_water", *options, "--serve", folder.name]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("BACKSWEEP", "NUMBA", "OMP")}
    job = subprocess.Popen(
        [str(c) for c in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | threads,
        text=True,
    )
    assert job.stdin and job.stdout
    calls: list[str] = []

    def work() -> Any:
        order = "run" if calls else "keep"
        calls.append(order)
        print(order, file=job.stdin, flush=True)
        answer = job.stdout.readline().strip()
        if answer != "done":
            raise RuntimeError(f"the ranks ended with status {job.wait()}")
        if order == "run":
            return None
        with np.load(Path(folder.name) / "result.npz") as found:
            result = tuple(found[f"arr_{k}"] for k in range(len(found.files)))
        folder.cleanup()
        return result

    return work


def serve(problem: ShallowWater, folder: Path) -> None:
    """On each rank: a gradient whenever a line arrives at the root; the end where none does."""
    from mpi4py import MPI

    import backsweep as bs
    from backsweep.comm import Decomposition
    from benchmarks.programs import make_shallow_water

    cut = Decomposition((problem.n_y, problem.n_x), axes=0)
    _, misfit = make_shallow_water(problem, bs.Checkpointing(schedule="store_all"))
    gradient = bs.value_and_grad(misfit, decomposition=cut)
    comm = MPI.COMM_WORLD
    while True:
        order = sys.stdin.readline().strip() if comm.rank == 0 else ""
        while comm.rank and not comm.iprobe(0):
            time.sleep(IDLE_SECONDS)  # else it would take a core from the others
        order = _shared(comm, order)
        if not order:
            return
        value, bar = gradient(problem.height)
        found = bar.gather()
        if comm.rank == 0:
            if order == "keep":
                np.savez(folder / "result.npz", value, found)
            print("done", flush=True)


def _shared(comm: Any, order: str) -> str:
    """The root's order, by messages that `iprobe` sees."""
    if comm.rank:
        return comm.recv(source=0)
    for rank in range(1, comm.size):
        comm.send(order, rank)
    return order


# ---------------------------------------------------------------------- rows


def measure_forward(problem: ShallowWater, repeats: int) -> Iterator[Row]:
    peers = [
        Contestant("JAX, rows along x", partial(make_jax, problem, "forward", 1), FIELDS_TOLERANCE),
        Contestant("JAX, rows along y", partial(make_jax, problem, "forward", 0), FIELDS_TOLERANCE),
        Contestant("NumPy", partial(make_numpy, problem), TOLERANCE),
    ]
    ours = Contestant("backsweep", partial(make_backsweep, problem, "forward"))
    results = run_row("shallow water, forward", (ours, *peers), repeats)
    work = describe(problem, "forward")
    jax = [c.name for c in peers if c.name.startswith("JAX")]
    yield report_ratio(work, results, "backsweep", jax, GOALS["forward"])
    yield report_ratio(work, results, "backsweep", ["NumPy"], None)


def measure_gradient(problem: ShallowWater, repeats: int, python: str | None) -> Iterator[Row]:
    peers = [
        Contestant(
            f"JAX, {name}, rows along {'yx'[x_axis]}",
            partial(make_jax, problem, "gradient", x_axis, remat),
            TOLERANCE,
        )
        for name, remat in (("store-all", None), ("remat of each step", "step"))
        for x_axis in (1, 0)
    ]
    contestants = [Contestant("backsweep", partial(make_backsweep, problem, "gradient")), *peers]
    on_ranks = f"backsweep on {N_THREADS} ranks"
    if python:
        contestants.insert(1, Contestant(on_ranks, partial(make_ranks, problem, python), TOLERANCE))
    results = run_row("shallow water, gradient", contestants, repeats)
    work, names = describe(problem, "gradient"), [c.name for c in peers]
    yield report_ratio(work, results, "backsweep", names, GOALS["gradient"])
    if python:
        yield report_ratio(work, results, on_ranks, names, GOALS["gradient"])
        yield report_ratio(work, results, on_ranks, ["backsweep"], None)


def describe(problem: ShallowWater, row: str) -> str:
    return f"shallow water, {problem.n_x} x {problem.n_y}, {problem.n_steps} steps: {row}"


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    problem = problem_of(arguments)
    if "forward" in arguments.rows:
        yield from measure_forward(problem, arguments.repeat)
    if "gradient" in arguments.rows:
        yield from measure_gradient(problem, arguments.repeat, arguments.mpi)


def problem_of(arguments: argparse.Namespace) -> ShallowWater:
    n_x, n_y = arguments.cells
    return ShallowWater(n_y, n_x, arguments.steps)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    has_mpi = importlib.util.find_spec("mpi4py") is not None
    parser.add_argument("rows", nargs="*", default=list(GOALS), help="forward, gradient or both")
    parser.add_argument("--cells", type=int, nargs=2, default=(3600, 1800), metavar=("NX", "NY"))
    parser.add_argument("--steps", type=int, default=ShallowWater.n_steps)
    parser.add_argument("--mpi", metavar="PYTHON", default=sys.executable if has_mpi else None)
    parser.add_argument("--serve", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(problem_of(given), given.serve)
    else:
        run_script(measure_rows, parser)
