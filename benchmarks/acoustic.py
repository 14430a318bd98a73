"""Acoustic 512 x 512, 8th order, 1000 steps, float32: forward and gradient.

python -m benchmarks.acoustic [forward] [gradient]
"""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.common import Contestant, Work, describe_machine, report_ratio, run_row
from benchmarks.problems import Acoustic


def make_numba(is_gradient: bool) -> Work:
    from benchmarks.baselines.acoustic_numba import AcousticNumba

    problem = Acoustic()
    program = AcousticNumba(problem)
    return partial(program.value_and_grad if is_gradient else program.forward, problem.c2)


def make_devito(is_gradient: bool, save: str = "laplacian") -> Work:
    from benchmarks.baselines.acoustic_devito import AcousticDevito

    problem = Acoustic()
    program = AcousticDevito(problem, save)
    return partial(program.value_and_grad if is_gradient else program.forward, problem.c2)


def make_jax(is_gradient: bool, remat: bool = False) -> Work:
    from benchmarks.baselines.acoustic_jax import AcousticJax

    problem = Acoustic()
    program = AcousticJax(problem, remat)
    return partial(program.value_and_grad if is_gradient else program.forward, problem.c2)


#: Devito adds the terms of the Laplacian in another order, dimension by dimension. Against JAX in
#: float64 the gradients are off by 9e-4 (Numba), 9e-4 (JAX) and 1.5e-3 (Devito): float32 rounding.
DEVITO_TOLERANCE = 3e-3

FORWARD = (
    Contestant("Numba by hand", partial(make_numba, False)),
    Contestant("Devito", partial(make_devito, False), DEVITO_TOLERANCE),
    Contestant("JAX", partial(make_jax, False)),
)
GRADIENT = (
    Contestant("Numba by hand", partial(make_numba, True)),
    Contestant("Devito, saved Laplacian", partial(make_devito, True), DEVITO_TOLERANCE),
    Contestant(
        "Devito, saved wavefield", partial(make_devito, True, "wavefield"), DEVITO_TOLERANCE
    ),
    Contestant("JAX, store-all", partial(make_jax, True)),
    Contestant("JAX, sqrt remat", partial(make_jax, True, True)),
)


def main(rows: list[str]) -> None:
    print(describe_machine())
    if not rows or "forward" in rows:
        results = run_row("acoustic, forward", FORWARD, repeats=7)
        # The row is void if the hand-written loop is slower than Devito's operator.
        report_ratio(results, "Numba by hand", ["Devito"], 1.0)
    if not rows or "gradient" in rows:
        run_row("acoustic, gradient", GRADIENT)


if __name__ == "__main__":
    main(sys.argv[1:])
