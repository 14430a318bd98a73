"""The gradient of the Bloch problem in JAX: `lax.scan` under `jit`, store-all and sqrt-remat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines.jax_tools import scan
from benchmarks.problems import Bloch


class BlochJax:
    """`value_and_grad(waveforms)`, float64."""

    def __init__(self, problem: Bloch, remat: bool = False) -> None:
        jax.config.update("jax_enable_x64", True)
        self.problem = problem
        self.is_remat = remat
        self.spins = tuple(jnp.asarray(a) for a in problem.spins)
        self.initial = tuple(jnp.asarray(a) for a in problem.initial())
        self._value_and_grad = jax.jit(jax.value_and_grad(self._loss))

    def _loss(self, waveforms):
        def step(carry, x):
            return self.problem.step(jnp, carry, x, self.spins), None

        n_steps = self.problem.n_steps
        carry, _ = scan(step, self.initial, waveforms, n_steps, self.is_remat)
        return self.problem.loss(jnp, carry)

    def value_and_grad(
        self, waveforms: tuple[np.ndarray, ...]
    ) -> tuple[float, tuple[np.ndarray, ...]]:
        """Loss and its gradient with respect to the five waveforms."""
        value, gradient = self._value_and_grad(waveforms)
        return float(value), tuple(np.asarray(g) for g in gradient)
