"""The problems as a user of backsweep writes them: steps in plain NumPy, `scan`, a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import backsweep as bs
from backsweep import models
from backsweep.models.shallow_water import stepping
from benchmarks.problems import Acoustic, Bloch, Heat, PairForces, ShallowWater

Loss = Callable[..., Any]


def make_acoustic(
    problem: Acoustic, checkpointing: bs.Checkpointing | None = None
) -> tuple[Callable[[Any], Any], Loss]:
    """Traces of a model c2, and the misfit of (c2, observed)."""
    quiet = np.zeros(problem.shape, np.float32)

    def simulate(c2):
        def step(carry, source):
            return problem.step(carry, source, c2, problem.sigma)

        return bs.scan(step, (quiet, quiet), problem.wavelet, checkpointing=checkpointing)[1]

    def misfit(c2, observed):
        return 0.5 * np.sum((simulate(c2) - observed) ** 2)

    return simulate, misfit


def make_bloch(problem: Bloch) -> Loss:
    """The loss of five waveforms."""

    def loss(*waveforms):
        def step(carry, x):
            return problem.step(np, carry, x, problem.spins), None

        carry, _ = bs.scan(step, problem.initial(), waveforms)
        return problem.loss(np, carry)

    return loss


def make_pair_forces(problem: PairForces) -> Loss:
    """The loss of the initial positions and velocities."""

    def loss(x, v):
        carry, _ = bs.scan(
            lambda carry, _: (problem.step(carry), None), (x, v), length=problem.n_steps
        )
        return np.sum(carry[0] ** 2)

    return loss


def make_heat(problem: Heat, checkpointing: bs.Checkpointing | None = None) -> tuple[Loss, Loss]:
    """The final state of an initial one, and its loss."""

    def final(u):
        def step(carry, _):
            return problem.step(carry), None

        return bs.scan(step, u, length=problem.n_steps, checkpointing=checkpointing)[0]

    return final, lambda u: problem.loss(final(u))


def shallow_water_model(p: ShallowWater) -> models.ShallowWater:
    """The package's model of the problem."""
    return models.ShallowWater(
        (p.n_y, p.n_x),
        p.spacing,
        p.dt,
        p.n_steps,
        gravity=p.gravity,
        coriolis=p.coriolis,
        beta=p.beta,
        viscosity=p.viscosity,
        epsilon=p.epsilon,
    )


def make_shallow_water(
    problem: ShallowWater, checkpointing: bs.Checkpointing | None = None
) -> tuple[Callable[[Any], Any], Loss]:
    """The last height, u and v of a first height, and their misfit."""
    model = shallow_water_model(problem)

    def last(height):
        return model.simulate(height, problem.u, checkpointing=checkpointing)

    def misfit(height):
        return 0.5 * np.sum((last(height)[0] - problem.depth) ** 2)

    return last, misfit


def run_shallow_water_in_numpy(problem: ShallowWater) -> tuple[np.ndarray, ...]:
    """The last height, u and v, by the same step without backsweep."""
    model = shallow_water_model(problem)
    carry, advance = stepping(model, problem.height, problem.u, 0.0, 0.0)
    for x in zip(*problem.weights, strict=True):
        carry = advance(carry, x)
    return carry[0]
