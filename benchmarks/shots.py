"""Compilations of 100 shots at other places, 3 models and another time step: one set.

python -m benchmarks.shots
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.problems import Acoustic
from benchmarks.rows import Row, make_parser, run_script

N_SHOTS = 100
SMALL = Acoustic(n_z=64, n_x=96, n_steps=50, n_receivers=24, sponge_width=10)


def make_shots() -> Iterator[Acoustic]:
    """Sources at other places, receivers at other depths; every fourth with another time step."""
    for shot in range(N_SHOTS):
        yield replace(
            SMALL,
            source=(8 + shot % 7, 6 + (5 * shot) % 84),
            receiver_depth=5 + shot % 11,
            dt=SMALL.dt * (0.9 if shot % 4 == 3 else 1.0),
        )


def run_shot(problem: Acoustic, factor: float) -> None:
    """One gradient; the model is the problem's times a factor."""
    import backsweep as bs
    from benchmarks.programs import make_acoustic

    _, misfit = make_acoustic(problem)
    observed = np.zeros((problem.n_steps, problem.n_receivers), np.float32)
    bs.value_and_grad(misfit)(problem.scale(factor * problem.velocity), observed)


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    from backsweep.codegen.statistics import statistics

    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["BACKSWEEP_CACHE_DIR"] = cache
        for problem in make_shots():
            for factor in (1.0, 1.05, 1.1):
                start = time.perf_counter()
                run_shot(problem, factor)
                seconds.append(time.perf_counter() - start)
                if len(seconds) == 1:
                    one_set = statistics.compilations
    print(
        f"{N_SHOTS} shots, 3 models, 2 time steps: {statistics.compilations} compilations, "
        f"{one_set} of them by the first gradient, {statistics.hits} cache hits"
    )
    row = Row(
        f"{N_SHOTS} shots at other places, 3 models, another time step",
        "sets of compiled sweeps",
        statistics.compilations / one_set,
        1,
        "sets",
        remark=f"counter: {one_set} after the first gradient, {statistics.compilations} after "
        f"{len(seconds)}; then {1000 * float(np.median(seconds[1:])):.1f} ms each",
    )
    print(f"  {row}")
    yield row


if __name__ == "__main__":
    run_script(measure_rows, make_parser(__doc__))
