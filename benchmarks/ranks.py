"""One grid on two ranks, against two threads, and against a stencil by hand with mpi4py.

    python -m benchmarks.ranks [--repeat N] [--steps N] [--json FILE]

Each contestant is a job of its own, started in turns, whose first call compiles and is not counted.
What a gradient costs once (tracing, partition, checksums: 25 to 40 ms) weighs on short ones; try
--steps 100.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.problems import Acoustic
from benchmarks.rows import Row, make_parser, run_script

N_CALLS = 5


@dataclass(frozen=True)
class Job:
    """A contestant: what it runs, on how many ranks of how many threads."""

    name: str
    work: str
    n_ranks: int = 1
    n_threads: int = 1

    def seconds(self, n_steps: int) -> float:
        """Median of some calls, on the slowest rank."""
        command = [sys.executable, "-m", "benchmarks.ranks"]
        command += ["--work", self.work, "--steps", str(n_steps)]
        if self.n_ranks > 1:
            launcher = Path(sys.executable).with_name("mpiexec")
            command = [str(launcher), "-n", str(self.n_ranks), *command]
        threads = {"BACKSWEEP_NUM_THREADS": str(self.n_threads)}
        found = subprocess.run(
            command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True
        )
        return float(json.loads(found.stdout.strip().splitlines()[-1]))


JOBS = (
    Job("1 x 1", "serial"),
    Job("1 rank, 2 threads", "serial", n_threads=2),
    Job("1 rank, 2 threads, as one block", "blocks", n_threads=2),
    Job("2 ranks", "blocks", n_ranks=2),
    Job("by hand, 1 x 1", "by_hand"),
    Job("by hand, 2 ranks", "by_hand", n_ranks=2),
)


def make_serial(problem: Acoustic) -> Callable[[], object]:
    """The gradient of the acoustic misfit, in one piece."""
    return _gradient(problem, None)


def make_blocks(problem: Acoustic) -> Callable[[], object]:
    """The same, cut along the slow axis."""
    import backsweep as bs

    return _gradient(problem, bs.Decomposition(problem.shape, axes=0))


def _gradient(problem: Acoustic, decomposition: object) -> Callable[[], object]:
    import backsweep as bs
    from benchmarks.programs import make_acoustic

    _, misfit = make_acoustic(problem, bs.Checkpointing(schedule="store_all"))
    observed = np.zeros((problem.n_steps, problem.n_receivers), np.float32)
    gradient = bs.value_and_grad(misfit, decomposition=decomposition)  # type: ignore[arg-type]
    return lambda: gradient(problem.c2, observed)


def make_by_hand(problem: Acoustic) -> Callable[[], object]:
    """The gradient by hand, on rows of the grid, ghosts by Sendrecv."""
    from mpi4py import MPI

    from benchmarks.baselines.acoustic_mpi import AcousticMPI

    observed = np.zeros((problem.n_steps, problem.n_receivers), np.float32)
    by_hand = AcousticMPI(problem, MPI.COMM_WORLD)
    return lambda: by_hand.value_and_grad(observed)


def measure(work: str, n_steps: int) -> float:
    """Median seconds of a call, on the slowest rank."""
    from backsweep.comm import world

    make = {"serial": make_serial, "blocks": make_blocks, "by_hand": make_by_hand}[work]
    call = make(Acoustic(n_z=1024, n_x=1024, n_steps=n_steps))
    comm = world()
    call()
    found = []
    for _ in range(N_CALLS):
        comm.allgather(None)
        begin = time.perf_counter()
        call()
        found.append(max(comm.allgather(time.perf_counter() - begin)))
    return statistics.median(found)


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    work = f"acoustic, 1024 x 1024, {arguments.steps} steps: gradient"
    turns: dict[str, list[float]] = {job.name: [] for job in JOBS}
    for _ in range(arguments.repeat):
        for job in JOBS:
            turns[job.name].append(job.seconds(arguments.steps))
            print(f"{job.name}: {turns[job.name][-1]:.4f} s", flush=True)
    seconds = {name: statistics.median(values) for name, values in turns.items()}
    for name, base, goal in (
        ("2 ranks", "1 rank, 2 threads", 1.15),
        ("1 rank, 2 threads, as one block", "1 rank, 2 threads", 1.05),
        ("2 ranks", "by hand, 2 ranks", 1.2),
    ):
        pair = {key: seconds[key] for key in (name, base)}
        row = Row(work, f"{name} / {base}", seconds[name] / seconds[base], goal, seconds=pair)
        print(row, flush=True)
        yield row
    speedup = seconds["1 x 1"] / seconds["2 ranks"]
    by_hand = seconds["by hand, 1 x 1"] / seconds["by hand, 2 ranks"]
    remark = f"speed-ups on two ranks: by hand {by_hand:.2f}; backsweep {speedup:.2f}"
    row = Row(work, "speed-up by hand / backsweep", by_hand / speedup, 1.05, remark=remark)
    print(row, flush=True)
    yield row


if __name__ == "__main__":
    parser = make_parser(__doc__, repeat=3)
    parser.add_argument("--work", help="one job's part, on its ranks")
    parser.add_argument("--steps", type=int, default=400, help="time steps of a gradient")
    known = parser.parse_known_args()[0]
    if known.work is None:
        run_script(measure_rows, parser)
    else:
        seconds = measure(known.work, known.steps)
        from backsweep.comm import world

        if world().is_root:
            print(json.dumps(seconds))
