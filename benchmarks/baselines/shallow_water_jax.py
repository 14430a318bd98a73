"""Shallow water in JAX: `lax.scan` under `jit`, store-all, remat of each step and sqrt-remat.

The scheme is that of `backsweep.models.ShallowWater`, with `jnp.pad` in place of in-place writes:
with `.at[]` XLA took up to half as long again. `x_axis` is the periodic one; which order of the
axes is the faster one is up to XLA.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines.jax_tools import scan
from benchmarks.problems import ShallowWater


class ShallowWaterJax:
    """`forward(height)` and `value_and_grad(height)`; arrays are (y, x) outside."""

    def __init__(self, problem: ShallowWater, x_axis: int = 1, remat: str | None = None) -> None:
        self.problem = problem
        self.is_turned = x_axis == 0
        self.remat = remat
        self.y = 1 - x_axis
        self.u = self._turned(problem.u)
        corners = problem.f_at_corners
        self.f = corners if self.is_turned else corners[:, None]
        self._forward = jax.jit(self._last)
        self._value_and_grad = jax.jit(jax.value_and_grad(self._misfit))

    def _turned(self, a: Any) -> Any:
        return jnp.asarray(a.T if self.is_turned else a)

    def _east(self, a: Any) -> Any:
        return jnp.roll(a, -1, 1 - self.y)

    def _west(self, a: Any) -> Any:
        return jnp.roll(a, 1, 1 - self.y)

    def _south(self, a: Any) -> Any:
        """All rows but the northernmost."""
        return a[:, :-1] if self.y else a[:-1]

    def _north(self, a: Any) -> Any:
        return a[:, 1:] if self.y else a[1:]

    def _padded(self, a: Any, south: int, north: int) -> Any:
        return jnp.pad(a, ((0, 0), (south, north)) if self.y else ((south, north), (0, 0)))

    def _tendencies(self, h: Any, u: Any, v: Any) -> tuple[Any, Any, Any]:
        p = self.problem
        east, west, south, north = self._east, self._west, self._south, self._north
        per_cell, friction = 1 / p.spacing, p.viscosity / p.spacing**2

        def below(a: Any) -> Any:  # what belongs to a face, at the row south of it
            return self._padded(a, 0, 1)

        def above(a: Any) -> Any:
            return self._padded(a, 1, 0)

        v = south(v)
        pairs = south(h) + north(h)
        to_east = 0.5 * (h + east(h)) * u
        to_north = 0.5 * pairs * v
        vorticity = self.f + per_cell * (east(v) - v - (north(u) - south(u)))
        q = vorticity / (pairs + east(pairs))
        squares = 0.25 * v**2
        energy = p.gravity * h + 0.25 * (u**2 + west(u) ** 2) + below(squares) + above(squares)
        h_dot = per_cell * (west(to_east) - to_east - below(to_north) + above(to_north))
        turned = q * (to_north + east(to_north))
        slope = friction * (north(u) - south(u))
        u_dot = per_cell * (energy - east(energy)) + below(turned) + above(turned)
        u_dot += friction * (east(u) - 2 * u + west(u)) + below(slope) - above(slope)
        turned = q * (south(to_east) + north(to_east))
        v_dot = per_cell * (south(energy) - north(energy)) - (turned + west(turned))
        v_dot += friction * (east(v) - 4 * v + west(v))
        v_dot += friction * (below(north(v)) + above(south(v)))
        return h_dot, u_dot, below(v_dot)

    def _last(self, height: Any) -> tuple[Any, Any, Any]:
        def step(carry: Any, x: Any) -> Any:
            state, old = carry
            new = self._tendencies(*state)
            a, b = x
            moved = (y + (a * r + b * s) for y, r, s in zip(state, new, old, strict=True))
            return (tuple(moved), new), None

        if self.remat == "step":
            step = jax.checkpoint(step)
        rest = jnp.zeros_like(height)
        carry = (height, self.u, rest), (rest, rest, rest)
        n_steps = self.problem.n_steps
        return scan(step, carry, self.problem.weights, n_steps, self.remat == "sqrt")[0][0]

    def _misfit(self, height: Any) -> Any:
        return 0.5 * jnp.sum((self._last(height)[0] - self.problem.depth) ** 2)

    def forward(self, height: np.ndarray) -> tuple[np.ndarray, ...]:
        """The last height, u and v."""
        result = self._forward(self._turned(height))
        return tuple(np.asarray(a.T if self.is_turned else a) for a in result)

    def value_and_grad(self, height: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit of the last height and its gradient with respect to the first."""
        value, gradient = self._value_and_grad(self._turned(height))
        return float(value), np.asarray(gradient.T if self.is_turned else gradient)
