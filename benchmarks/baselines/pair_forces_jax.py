"""The gradient of the pair forces in JAX: `lax.scan` under `jit`, store-all and sqrt-remat.

The power is written as a square root: with `** 1.5` XLA is about fifteen times slower.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines.jax_tools import scan
from benchmarks.problems import PairForces


class PairForcesJax:
    """`value_and_grad(x, v)`, float64.

    Store-all keeps several matrices of n_particles^2 per step (gigabytes); `remat="step"` keeps
    none of them, `remat="sqrt"` those of one block of steps at a time.
    """

    def __init__(self, problem: PairForces, remat: str | None = None) -> None:
        jax.config.update("jax_enable_x64", True)
        self.problem = problem
        self.remat = remat
        self._value_and_grad = jax.jit(jax.value_and_grad(self._loss, argnums=(0, 1)))

    def _loss(self, x, v):
        def step(carry, _):
            return self.problem.step_sqrt(jnp, carry), None

        if self.remat == "step":
            step = jax.checkpoint(step)
        carry, _ = scan(step, (x, v), None, self.problem.n_steps, self.remat == "sqrt")
        return jnp.sum(carry[0] ** 2)

    def value_and_grad(
        self, x: np.ndarray, v: np.ndarray
    ) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """Sum of squares of the final positions, and its gradient with respect to x and v."""
        value, gradient = self._value_and_grad(x, v)
        return float(value), tuple(np.asarray(g) for g in gradient)
