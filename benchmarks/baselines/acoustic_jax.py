"""The acoustic gradient in JAX: `lax.scan` under `jit`, store-all and sqrt-remat.

The step is the same formula with `.at[]` in place of in-place writes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines.jax_tools import scan
from benchmarks.problems import Acoustic, laplacian


class AcousticJax:
    """`forward(c2)` and `value_and_grad(c2)`, store-all or with remat."""

    def __init__(self, problem: Acoustic, remat: bool = False) -> None:
        self.problem = problem
        self.is_remat = remat
        self.sigma = jnp.asarray(problem.sigma)
        self.wavelet = jnp.asarray(problem.wavelet)
        self.observed = jnp.asarray(problem.observed)
        self._forward = jax.jit(self._traces)
        self._value_and_grad = jax.jit(jax.value_and_grad(self._misfit))

    def _traces(self, c2):
        rows, columns = self.problem.receivers

        def step(carry, source):
            u, u_prev = carry
            u_next = (2 - self.sigma) * u - (1 - self.sigma) * u_prev
            u_next = u_next.at[4:-4, 4:-4].add(c2[4:-4, 4:-4] * laplacian(u))
            u_next = u_next.at[self.problem.source].add(source)
            return (u_next, u), u_next[rows, columns]

        zero = jnp.zeros(self.problem.shape, jnp.float32)
        n_steps = self.problem.n_steps
        return scan(step, (zero, zero), self.wavelet, n_steps, self.is_remat)[1]

    def _misfit(self, c2):
        return 0.5 * jnp.sum((self._traces(c2) - self.observed) ** 2)

    def forward(self, c2: np.ndarray) -> np.ndarray:
        """All traces."""
        return np.asarray(self._forward(c2))

    def value_and_grad(self, c2: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit and its gradient with respect to c2."""
        value, gradient = self._value_and_grad(c2)
        return float(value), np.asarray(gradient)
