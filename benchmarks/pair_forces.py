"""Pair forces, N = 1000, leapfrog, 100 steps, float64: gradient of the initial state.

python -m benchmarks.pair_forces
"""

from __future__ import annotations

from functools import partial

from benchmarks.common import Contestant, Work, describe_machine, run_row
from benchmarks.problems import PairForces


def make_jax(remat: str | None) -> Work:
    from benchmarks.baselines.pair_forces_jax import PairForcesJax

    problem = PairForces()
    return partial(PairForcesJax(problem, remat).value_and_grad, *problem.initial())


CONTESTANTS = (
    Contestant("JAX, remat of each step", partial(make_jax, "step")),
    Contestant("JAX, store-all", partial(make_jax, None), 1e-9),
    Contestant("JAX, sqrt remat", partial(make_jax, "sqrt"), 1e-9),
)


if __name__ == "__main__":
    print(describe_machine())
    run_row("pair forces, gradient", CONTESTANTS)
