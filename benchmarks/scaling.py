"""What the cost model predicts of an acoustic gradient on 1, 2 and 4 ranks, and what it takes.

    python -m benchmarks.scaling [--repeat N] [--json FILE] [--save FOLDER]

Each job measures the parameters on its own ranks, of one thread each, predicts all three jobs, and
runs the gradient; its first call compiles and is not counted. Where there are fewer cores than
ranks the model has to know. `--save` keeps the parameters of each job.
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
from typing import Any

import numpy as np

from benchmarks.problems import Acoustic
from benchmarks.rows import Row, make_parser, run_script

RANKS = (1, 2, 4)
N_CALLS = 5


@dataclass(frozen=True)
class Case:
    """A gradient: cells along each axis, steps, snapshots (0: all states are kept)."""

    n: int
    n_steps: int
    n_snapshots: int

    @property
    def name(self) -> str:
        kept = f"{self.n_snapshots} snapshots" if self.n_snapshots else "all states"
        return f"acoustic gradient, {self.n} x {self.n}, {self.n_steps} steps, {kept}"


CASES = (Case(512, 200, 0), Case(1024, 100, 10))


def make(case: Case) -> tuple[Callable[..., Any], tuple[np.ndarray, ...], Any]:
    """Misfit, its arguments, and how the grid is cut."""
    import backsweep as bs
    from benchmarks.programs import make_acoustic

    problem = Acoustic(n_z=case.n, n_x=case.n, n_steps=case.n_steps)
    schedule = bs.Checkpointing(schedule="store_all")
    if case.n_snapshots:
        schedule = bs.Checkpointing(snapshots=case.n_snapshots)
    _, misfit = make_acoustic(problem, schedule)
    observed = np.zeros((problem.n_steps, problem.n_receivers), np.float32)
    return misfit, (problem.c2, observed), bs.Decomposition(problem.shape, axes=(0, 1))


def measure(case: Case, save: Path | None) -> dict[str, Any]:
    """On the ranks of this job: seconds that are predicted for each number, and those taken."""
    import backsweep as bs

    misfit, arguments, blocks = make(case)
    comm = blocks.comm
    begin = time.perf_counter()
    found = bs.scaling(misfit, decomposition=blocks)(*arguments)
    spent = time.perf_counter() - begin
    predictions = (
        {str(n): found.on(n, ranks_per_node=n, threads=1) for n in RANKS} if comm.is_root else {}
    )
    if save is not None and comm.is_root:
        found.measured.write(save / f"{case.n}-on-{comm.size}.toml")
    gradient = bs.value_and_grad(misfit, decomposition=blocks)
    gradient(*arguments)
    taken = []
    for _ in range(N_CALLS):
        comm.allgather(None)
        begin = time.perf_counter()
        gradient(*arguments)
        taken.append(max(comm.allgather(time.perf_counter() - begin)))
    return {
        "seconds": statistics.median(taken),
        "predicted": {n: p.seconds for n, p in predictions.items()},
        "terms": {n: dict(p.terms) for n, p in predictions.items()},
        "breaks_first": {n: p.breaks_first for n, p in predictions.items()},
        "measuring": spent,
        "compiling": found.compile_seconds,
    }


def run_job(number: int, n_ranks: int, save: Path | None) -> dict[str, Any]:
    """One case on some ranks, in processes of their own."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--work", str(number)]
    command += ["--save", str(save)] if save else []
    if n_ranks > 1:
        launcher = Path(sys.executable).with_name("mpiexec")
        command = [str(launcher), "-n", str(n_ranks), *command]
    done = subprocess.run(
        command,
        env=os.environ | {"BACKSWEEP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=240,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def median_job(number: int, n_ranks: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Of several jobs that with the median ratio of predicted to taken seconds."""
    jobs = [run_job(number, n_ranks, arguments.save) for _ in range(arguments.repeat)]
    jobs.sort(key=lambda job: job["predicted"][str(n_ranks)] / job["seconds"])
    return jobs[len(jobs) // 2]


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    for number, case in enumerate(CASES):
        jobs = {n: median_job(number, n, arguments) for n in RANKS}
        for n, job in jobs.items():
            terms = ", ".join(
                f"{name} {1e3 * s:.1f} ms" for name, s in job["terms"][str(n)].items() if s > 5e-5
            )
            print(
                f"{case.name}, {n} rank(s): {job['seconds']:.4f} s; {terms}; breaks first: "
                f"{job['breaks_first'][str(n)]}; measured in {job['measuring']:.1f} s, of it "
                f"{job['compiling']:.1f} s compiling",
                flush=True,
            )
            for source in sorted({n, 2}):
                predicted = jobs[source]["predicted"][str(n)]
                row = Row(
                    case.name,
                    f"{n} rank(s): predicted / measured, parameters of {source} rank(s)",
                    predicted / job["seconds"],
                    seconds={"predicted": predicted, "measured": job["seconds"]},
                )
                print(f"  {row}", flush=True)
                yield row


if __name__ == "__main__":
    parser = make_parser(__doc__, repeat=1)
    parser.add_argument("--save", type=Path, help="folder for the parameters of each job")
    parser.add_argument("--work", type=int, help="one job's part, on its ranks")
    given = parser.parse_known_args()[0]
    if given.work is None:
        run_script(measure_rows, parser)
    else:
        result = measure(CASES[given.work], given.save)
        from backsweep.comm import world

        if world().is_root:
            print(json.dumps(result))
