"""Inversion of Marmousi2 by SciPy, with two kinds of gradient.

    python -m benchmarks.marmousi2 FOLDER [--maxfun N]

FOLDER holds marmousi2_true.mat and marmousi2_smooth.mat. The step is that of `sponge.py`; the
hand-written kernels are `baselines/`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sponge
from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.rows import Row, make_parser, run_script

MEMORY = "1 GB"
WATER = 1501.0  # m/s
#: Of misfit and gradient at the start, and of the whole history after some evaluations.
TOLERANCE = 3e-3

Gradient = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Experiment:
    """Models and geometry from the two files, which count points from 1 and hold (x, z)."""

    folder: str

    def _load(self, name: str) -> dict[str, Any]:
        from scipy.io import loadmat

        path = Path(self.folder) / f"marmousi2_{name}.mat"
        return loadmat(path, squeeze_me=True, struct_as_record=False)

    @cached_property
    def data(self) -> dict[str, Any]:
        return self._load("true")

    @cached_property
    def true(self) -> np.ndarray:
        return self.data["vp"].T.astype(np.float32)

    @cached_property
    def start(self) -> np.ndarray:
        return self._load("smooth")["vp"].T.astype(np.float32)

    @property
    def dt(self) -> float:
        return float(self.data["dt"])

    @property
    def spacing(self) -> float:
        return float(self.data["dx"])

    @property
    def sources(self) -> list[tuple[int, int]]:
        return [(s.iy - 1, s.ix - 1) for s in self.data["source"]]

    @cached_property
    def receivers(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns; all shots have the same."""
        first = self.data["receiver"][0]
        assert all(np.array_equal(r.ix, first.ix) for r in self.data["receiver"])
        return first.iy - 1, first.ix - 1

    @cached_property
    def wavelet(self) -> np.ndarray:
        """All shots have the same."""
        first, *others = (s.vec for s in self.data["source"])
        assert all(np.array_equal(first, other) for other in others)
        return (first / np.abs(first).max()).astype(np.float32)


def make_backsweep_gradient(e: Experiment) -> Gradient:
    import backsweep as bs

    checkpointing = bs.Checkpointing(memory=MEMORY)

    def simulate(velocity, shot):
        source = e.sources[shot]
        return sponge.record(
            velocity, source, e.receivers, e.wavelet, e.dt, e.spacing, checkpointing
        )

    shots = range(len(e.sources))
    observed = [simulate(e.true, shot) for shot in shots]

    def misfit(velocity):
        def of_shot(shot):
            return 0.5 * np.sum((simulate(velocity, shot) - observed[shot]) ** 2)

        return bs.sum_over(shots, of_shot)

    return bs.value_and_grad(misfit)


def make_numba_gradient(e: Experiment) -> Gradient:
    from benchmarks.baselines.marmousi2_numba import MarmousiNumba

    sigma = sponge.sponge(sponge.padded_shape(e.true.shape))
    courant = e.dt / e.spacing
    program = MarmousiNumba(sigma, sponge.FRAME, e.sources, e.receivers, e.wavelet, courant)
    program.observe(e.true)
    return program.value_and_grad


class _AllEvaluated(Exception):
    """SciPy looks at maxfun only after a line search; here all do the same number."""


def invert(e: Experiment, gradient: Gradient, maxfun: int) -> tuple[list[float], np.ndarray]:
    """Misfits of exactly maxfun evaluations relative to the first, and the best model."""
    import scipy.optimize

    is_rock = e.start > WATER
    weight = np.cumsum(is_rock, axis=0)[is_rock]
    unit = 1000 * weight / weight.mean()  # m/s
    history: list[float] = []
    best = (np.inf, e.start)

    def evaluate(unknowns: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        if len(history) == maxfun:
            raise _AllEvaluated
        velocity = e.start.copy()
        velocity[is_rock] = unknowns * unit
        value, slope = gradient(velocity)
        best = min(best, (float(value), velocity), key=lambda pair: pair[0])
        history.append(float(value))
        return value / history[0], np.float64(slope[is_rock]) * unit / history[0]

    options = {"maxfun": maxfun, "maxiter": maxfun, "maxcor": 20, "ftol": 0}
    with suppress(_AllEvaluated):
        scipy.optimize.minimize(
            evaluate, e.start[is_rock] / unit, jac=True, method="L-BFGS-B", options=options
        )
    if len(history) < maxfun:
        raise RuntimeError(f"L-BFGS-B stopped after {len(history)} evaluations: times differ")
    return [value / history[0] for value in history], best[1]


def make_inversion(
    name: str, make_gradient: Callable[[Experiment], Gradient], folder: str, maxfun: int
) -> Work:
    """The inversion; it returns misfit and gradient at the start, for comparison.

    Later models drift apart: L-BFGS-B amplifies rounding.
    """
    experiment = Experiment(folder)
    gradient = make_gradient(experiment)
    # Compiled, and copied since it may be a view of a buffer.
    value, slope = gradient(experiment.start)
    first = float(value), np.array(slope)

    def work() -> tuple[float, np.ndarray]:
        history, model = invert(experiment, gradient, maxfun)
        error = np.linalg.norm(model - experiment.true) / np.linalg.norm(experiment.true)
        print(
            f"  {name}: {len(history)} evaluations, misfit {min(history):.4f} of the start, "
            f"model error {error:.4f}",
            flush=True,
        )
        return first

    return work


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    folder, maxfun = str(arguments.folder), arguments.maxfun
    contestants = [
        Contestant(name, partial(make_inversion, name, make, folder, maxfun), TOLERANCE)
        for name, make in (
            ("backsweep", make_backsweep_gradient),
            ("Numba by hand", make_numba_gradient),
        )
    ]
    results = run_row(f"Marmousi2, L-BFGS-B, maxfun {maxfun}", contestants, arguments.repeat)
    work = f"Marmousi2, 8 shots, L-BFGS-B with maxfun {maxfun}"
    yield report_ratio(work, results, "backsweep", ["Numba by hand"], 1.10)


if __name__ == "__main__":
    parser = make_parser(__doc__, repeat=3)
    parser.add_argument("folder", type=Path, help="with the two .mat files")
    parser.add_argument("--maxfun", type=int, default=40, help="evaluations of the misfit")
    run_script(measure_rows, parser)
