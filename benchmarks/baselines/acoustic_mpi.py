"""The acoustic step as one would write it for MPI: rows of the grid, ghosts by Sendrecv, Numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from benchmarks.problems import LAPLACIAN, RADIUS, Acoustic

C0, C1, C2, C3, C4 = (np.float32(c) for c in LAPLACIAN)
TWO = np.float32(2)


@numba.njit(nogil=True, cache=True)
def advance(u: Any, before: Any, c2: Any, first: int, last: int) -> None:
    """One step of rows [first, last), over the field of two steps ago."""
    for i in range(first, last):
        for j in range(4, u.shape[1] - 4):
            total = TWO * C0 * u[i, j]
            total += C1 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1])
            total += C2 * (u[i - 2, j] + u[i + 2, j] + u[i, j - 2] + u[i, j + 2])
            total += C3 * (u[i - 3, j] + u[i + 3, j] + u[i, j - 3] + u[i, j + 3])
            total += C4 * (u[i - 4, j] + u[i + 4, j] + u[i, j - 4] + u[i, j + 4])
            before[i, j] = TWO * u[i, j] - before[i, j] + c2[i, j] * total


class AcousticMPI:
    """A block of rows with RADIUS ghost rows on either side."""

    def __init__(self, problem: Acoustic, comm: Any) -> None:
        self.comm, self.n_steps = comm, problem.n_steps
        n, size, rank = problem.n_z, comm.size, comm.rank
        lo, hi = n * rank // size, n * (rank + 1) // size
        self.first, self.last = RADIUS, RADIUS + hi - lo
        shape = (hi - lo + 2 * RADIUS, problem.n_x)
        self.u, self.before = (np.zeros(shape, np.float32) for _ in range(2))
        self.c2 = np.zeros(shape, np.float32)
        self.c2[RADIUS:-RADIUS] = problem.c2[lo:hi]
        self.up = rank - 1 if rank > 0 else -1
        self.down = rank + 1 if rank + 1 < size else -1

    def forward(self) -> np.ndarray:
        """All steps."""
        for _ in range(self.n_steps):
            advance(self.u, self.before, self.c2, self.first, self.last)
            self.u, self.before = self.before, self.u
            self._exchange(self.u)
        return self.u

    def _exchange(self, u: np.ndarray) -> None:
        if self.up >= 0:
            self.comm.Sendrecv(u[RADIUS : 2 * RADIUS], self.up, recvbuf=u[:RADIUS])
        if self.down >= 0:
            self.comm.Sendrecv(u[-2 * RADIUS : -RADIUS], self.down, recvbuf=u[-RADIUS:])
