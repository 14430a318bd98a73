"""The acoustic gradient as one would write it for MPI: rows of the grid, ghosts by Sendrecv.

The steps are those of `acoustic_numba`, on one thread; only ghosts and points are added here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from benchmarks.baselines.acoustic_numba import JIT_OPTIONS, flush_denormals, make_steps
from benchmarks.problems import RADIUS, Acoustic


@njit(**JIT_OPTIONS)
def flush(is_on: bool) -> None:
    """From Python: denormal numbers of this thread are zero, or no longer."""
    flush_denormals(is_on)


class AcousticMPI:
    """`value_and_grad()` of a block of rows, with RADIUS ghost rows on either side.

    Parameters
    ----------
    problem : Acoustic
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, problem: Acoustic, comm: Any) -> None:
        self.comm, self.problem = comm, problem
        n, width, rank = problem.n_z, problem.n_x, comm.rank
        self.lo, self.hi = n * rank // comm.size, n * (rank + 1) // comm.size
        n_points = (self.hi - self.lo + 2 * RADIUS) * width
        self.rows = tuple(
            np.uintp(row - self.lo + RADIUS)
            for row in (max(self.lo, RADIUS), min(self.hi, n - RADIUS))
        )
        self.c2, self.sigma = (np.zeros(n_points, np.float32) for _ in range(2))
        self.own = slice(RADIUS * width, n_points - RADIUS * width)
        self.c2[self.own] = problem.c2[self.lo : self.hi].ravel()
        self.sigma[self.own] = problem.sigma[self.lo : self.hi].ravel()
        self.source = self._inside(*(np.array([k]) for k in problem.source))[0]
        self.receivers, self.heard = self._inside(*problem.receivers)
        self.up = rank - 1 if rank > 0 else -1
        self.down = rank + 1 if rank + 1 < comm.size else -1
        self.stored = np.zeros((problem.n_steps, n_points), np.float32)
        self.gradient = np.zeros(n_points, np.float32)
        _, self.advance, self.reverse = make_steps(width)

    def _inside(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices of points in this block, and which points they are."""
        here = np.flatnonzero((self.lo <= rows) & (rows < self.hi))
        return (rows[here] - self.lo + RADIUS) * self.problem.n_x + columns[here], here

    def value_and_grad(self, observed: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit, and the gradient in this block, with respect to c2."""
        problem = self.problem
        residual = np.zeros((problem.n_steps, self.receivers.size), np.float32)
        u, before = np.zeros((2, self.gradient.size), np.float32)
        flush(True)
        for n in range(problem.n_steps):
            self.advance(*self.rows, u, before, self.c2, self.sigma, self.stored[n])
            before[self.source] += problem.wavelet[n]
            residual[n] = before[self.receivers] - observed[n, self.heard]
            u, before = before, u
            self._exchange(u)
        self.gradient[:] = 0
        mu, after = np.zeros((2, self.gradient.size), np.float32)
        points = self.receivers
        for n in range(problem.n_steps - 1, -1, -1):
            mu[points] += self.c2[points] * residual[n]
            self._exchange(mu)
            arrays = (mu, after, self.c2, self.sigma, self.stored[n], self.gradient)
            self.reverse(*self.rows, *arrays)
            mu, after = after, mu
        flush(False)
        value = self.comm.allreduce(0.5 * float(np.sum(np.square(residual), dtype=np.float64)))
        own = self.gradient[self.own] / self.c2[self.own]
        return value, own.reshape(-1, problem.n_x)

    def _exchange(self, u: np.ndarray) -> None:
        rows = u.reshape(-1, self.problem.n_x)
        if self.up >= 0:
            self.comm.Sendrecv(rows[RADIUS : 2 * RADIUS], self.up, recvbuf=rows[:RADIUS])
        if self.down >= 0:
            self.comm.Sendrecv(rows[-2 * RADIUS : -RADIUS], self.down, recvbuf=rows[-RADIUS:])
