"""Bloch, 100,000 spins x 200 steps, float64: gradient of five control waveforms.

python -m benchmarks.bloch
"""

from __future__ import annotations

from functools import partial

from benchmarks.common import Contestant, Work, describe_machine, run_row
from benchmarks.problems import Bloch


def make_jax(remat: bool) -> Work:
    from benchmarks.baselines.bloch_jax import BlochJax

    problem = Bloch()
    return partial(BlochJax(problem, remat).value_and_grad, problem.waveforms)


CONTESTANTS = (
    Contestant("JAX, store-all", partial(make_jax, False)),
    Contestant("JAX, sqrt remat", partial(make_jax, True), 1e-9),
)


if __name__ == "__main__":
    print(describe_machine())
    run_row("Bloch, gradient", CONTESTANTS)
