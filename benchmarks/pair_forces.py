"""Pair forces, N = 1000, leapfrog, 100 steps, float64: gradient of the initial state.

python -m benchmarks.pair_forces
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.problems import PairForces
from benchmarks.rows import Row, make_parser, run_script


def make_backsweep() -> Work:
    import backsweep as bs
    from benchmarks.programs import make_pair_forces

    problem = PairForces()
    gradient = bs.value_and_grad(make_pair_forces(problem), argnums=(0, 1))
    return partial(gradient, *problem.initial())


def make_jax(remat: str | None) -> Work:
    from benchmarks.baselines.pair_forces_jax import PairForcesJax

    problem = PairForces()
    return partial(PairForcesJax(problem, remat).value_and_grad, *problem.initial())


CONTESTANTS = (
    Contestant("backsweep", make_backsweep),
    Contestant("JAX, remat of each step", partial(make_jax, "step"), 1e-9),
    Contestant("JAX, store-all", partial(make_jax, None), 1e-9),
    Contestant("JAX, sqrt remat", partial(make_jax, "sqrt"), 1e-9),
)


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    results = run_row("pair forces, gradient", CONTESTANTS, arguments.repeat)
    work = "pair forces, N = 1000, 100 steps: gradient"
    yield report_ratio(work, results, "backsweep", [c.name for c in CONTESTANTS[1:]], 0.30)


if __name__ == "__main__":
    run_script(measure_rows, make_parser(__doc__))
