"""The acoustic problem in Devito: the same update written as an Eq, OpenMP, float32.

The grid is the interior of the problem's grid: Devito's halo is then what the outer points that
stay zero are for the others. Two hand-derived gradients: from the saved wavefield, or from the
saved Laplacian. Both propagate mu = c2 * lambda, as the Numba baseline does.

Numbering: u[0] = u[1] = 0, step n = 1 ... n_steps makes u[n + 1], adds source[n] to it and records
receivers[n]. The reverse loop at m = n_steps + 2 ... 3 knows mu[m], adds its part of the gradient
with what was saved at m - 1, and makes mu[m - 1] with the residual of u[m - 1], kept at index m.
"""

from __future__ import annotations

import re

import numpy as np
from devito import Eq, Function, Grid, Operator, SparseTimeFunction, TimeFunction, configuration

from benchmarks.problems import RADIUS, Acoustic

configuration["log-level"] = "ERROR"
configuration["language"] = "openmp"

#: Without blocks Devito deals single rows to the threads, which then read each other's rows in
#: every step: 0.20-0.23 s instead of 0.094 s for 1000 steps of 512 x 512 on two cores.
OPTIONS = ("advanced", {"blockinner": True, "linearize": True})
ROWS_PER_BLOCK = 126


class AcousticDevito:
    """`forward(c2)` and `value_and_grad(c2)`; operators compiled at the first call."""

    def __init__(self, problem: Acoustic, save: str = "laplacian") -> None:
        if save not in ("wavefield", "laplacian"):
            raise ValueError(f"save must be 'wavefield' or 'laplacian', not {save!r}")
        self.problem = problem
        self.n_steps = problem.n_steps
        shape = (problem.n_z - 2 * RADIUS, problem.n_x - 2 * RADIUS)
        self.grid = Grid(shape, extent=tuple(n - 1 for n in shape), dtype=np.float32)
        self.observed = problem.observed
        self.interior = (slice(RADIUS, -RADIUS),) * 2
        self.c2 = Function(name="c2", grid=self.grid, space_order=8)
        self.sigma = Function(name="sigma", grid=self.grid, space_order=8)
        self.sigma.data[:] = problem.sigma[self.interior]
        self.gradient = Function(name="gradient", grid=self.grid, space_order=0)
        self.source = self._sparse("source", np.array([problem.source]))
        self.source.data[1:-2, 0] = problem.wavelet
        positions = np.stack(problem.receivers, axis=1)
        self.receivers = self._sparse("receivers", positions)
        self.residual = self._sparse("residual", positions)
        self.u = self._field("u")
        self.mu = self._field("mu")
        forward = self._update(self.u, self.u.forward) + self._record(self.u)
        self.op_forward = Operator(forward, opt=OPTIONS)
        self._make_gradient(save)

    def _field(self, name: str, save: int | None = None) -> TimeFunction:
        return TimeFunction(name=name, grid=self.grid, time_order=2, space_order=8, save=save)

    def _sparse(self, name: str, positions: np.ndarray) -> SparseTimeFunction:
        n_points = len(positions)
        sparse = SparseTimeFunction(name=name, grid=self.grid, npoint=n_points, nt=self.n_steps + 3)
        sparse.coordinates.data[:] = positions - RADIUS
        return sparse

    def _update(self, u: TimeFunction, target, laplacian=None) -> list[Eq]:
        """The step towards `target`, which is u.forward or u.backward."""
        other = u.backward if target == u.forward else u.forward
        laplacian = u.laplace if laplacian is None else laplacian
        right = (2 - self.sigma) * u - (1 - self.sigma) * other + self.c2 * laplacian
        return [Eq(target, right)]

    def _record(self, u: TimeFunction) -> list:
        """The source into u.forward, and the receivers from it."""
        inject = self.source.inject(field=u.forward, expr=self.source)
        record = self.receivers.interpolate(expr=u.forward)
        return [inject, record]

    def _make_gradient(self, save: str) -> None:
        n_saved = self.n_steps + 3
        if save == "wavefield":
            self.saved = self._field("saved", n_saved)
            storing = self._update(self.saved, self.saved.forward) + self._record(self.saved)
            read = self.saved.backward.laplace
        else:
            self.saved = TimeFunction(
                name="saved", grid=self.grid, time_order=1, space_order=0, save=n_saved
            )
            storing = [Eq(self.saved, self.u.laplace)]
            storing += self._update(self.u, self.u.forward, self.saved) + self._record(self.u)
            read = self.saved.backward
        self.op_storing = Operator(storing, opt=OPTIONS)
        self.op_reverse = Operator(
            [Eq(self.gradient, self.gradient + read * self.mu)]
            + self._update(self.mu, self.mu.backward)
            + [self.residual.inject(field=self.mu.backward, expr=self.residual * self.c2)],
            opt=OPTIONS,
        )

    def _run(self, operator: Operator, first: int, last: int) -> None:
        """Apply an operator to the steps first to last, with blocks of whole rows."""
        n_rows, n_columns = self.grid.shape
        sizes = {"x": min(ROWS_PER_BLOCK, n_rows), "y": n_columns}
        names = (parameter.name for parameter in operator.parameters)
        blocks = {
            name: sizes[name[0]] for name in names if re.fullmatch(r"[xy]\d_blk\d_size", name)
        }
        operator.apply(time_m=first, time_M=last, dt=1.0, **blocks)

    def forward(self, c2: np.ndarray) -> np.ndarray:
        """All traces, shape (n_steps, n_receivers)."""
        self.c2.data[:] = c2[self.interior]
        self.u.data[:] = 0
        self._run(self.op_forward, 1, self.n_steps)
        return self.receivers.data[1:-2]

    def value_and_grad(self, c2: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit and its gradient with respect to c2."""
        self.c2.data[:] = c2[self.interior]
        self.u.data[:] = 0
        self.mu.data[:] = 0
        self.gradient.data[:] = 0
        if self.saved.time_order == 2:
            self.saved.data[:2] = 0
        self._run(self.op_storing, 1, self.n_steps)
        residual = self.receivers.data[1:-2] - self.observed
        self.residual.data[3:] = residual
        self._run(self.op_reverse, 3, self.n_steps + 2)
        gradient = np.zeros(c2.shape, np.float32)
        gradient[self.interior] = self.gradient.data / self.c2.data
        return 0.5 * float(np.sum(np.square(residual), dtype=np.float64)), gradient
