"""Bloch, 100,000 spins x 200 steps, float64: gradient of five control waveforms.

python -m benchmarks.bloch
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.problems import Bloch
from benchmarks.rows import Row, make_parser, run_script


def make_backsweep() -> Work:
    import backsweep as bs
    from benchmarks.programs import make_bloch

    problem = Bloch()
    argnums = tuple(range(len(problem.waveforms)))
    gradient = bs.value_and_grad(make_bloch(problem), argnums=argnums)
    return partial(gradient, *problem.waveforms)


def make_jax(remat: bool) -> Work:
    from benchmarks.baselines.bloch_jax import BlochJax

    problem = Bloch()
    return partial(BlochJax(problem, remat).value_and_grad, problem.waveforms)


CONTESTANTS = (
    Contestant("backsweep", make_backsweep),
    Contestant("JAX, store-all", partial(make_jax, False), 1e-9),
    Contestant("JAX, sqrt remat", partial(make_jax, True), 1e-9),
)


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    results = run_row("Bloch, gradient", CONTESTANTS, arguments.repeat)
    work = "Bloch, 100,000 spins x 200 steps: gradient"
    yield report_ratio(work, results, "backsweep", [c.name for c in CONTESTANTS[1:]], 0.15)


if __name__ == "__main__":
    run_script(measure_rows, make_parser(__doc__))
