"""Own step: the hydraulic conductivity of an aquifer from pumping tests, with a sparse solver.

    python examples/own_step.py

An implicit step solves a sparse linear system, which cannot be traced. The object below brings
its own adjoint, a solve with the same factors; schedule, budget and report are as in any scan.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.optimize
import scipy.sparse as sp
from scipy.sparse.linalg import splu

import backsweep as bs

N, DT = 32, 0.02  # cells along each side of the unit square, days
COLUMNS = np.arange(4, N, 8)
WELLS = (COLUMNS[:, None] * N + COLUMNS).ravel()  # 16 of them


class Aquifer:
    """Implicit Euler for dh/dt = div(K grad h) + q, with the head h = 0 at the west and east sides.

    With fluxes K_f D h through the faces f, K_f the mean over the two cells of a face,

        (I + dt D^T diag(K_f) D) h_next = h + dt q,       K_f = M K,

    and its adjoint is, with lambda the solution of the transposed system for h_next_bar,

        h_bar = lambda,   q_bar = dt lambda,   K_bar = -dt M^T ((D lambda) * (D h_next)).
    """

    def __init__(self):
        along = sp.diags_array([1.0, -1.0], offsets=[0, -1], shape=(N + 1, N)).tocsr()
        identity = sp.eye_array(N, format="csr")
        # Closed to the north and south: no faces there.
        faces = [sp.kron(identity, along), sp.kron(along[1:-1], identity)]
        self.D = sp.vstack(faces).tocsc() * N
        weights = abs(self.D)
        self.M = sp.diags_array(1 / weights.sum(axis=1)) @ weights
        self.n_factorisations, self.conductivity = 0, None

    def solve(self, conductivity, right_side, transposed="N"):
        if not np.array_equal(conductivity, self.conductivity):
            flow = self.D.T @ sp.diags_array(self.M @ conductivity) @ self.D
            self.lu = splu((sp.eye_array(N * N) + DT * flow).tocsc())
            self.conductivity = conductivity.copy()
            self.n_factorisations += 1
        return self.lu.solve(right_side, transposed)

    def right_side(self, h, q):
        result = h.copy()
        result[WELLS] += DT * q
        return result

    def advance(self, conductivity, h, q):
        h_next = self.solve(conductivity, self.right_side(h, q))
        return h_next, h_next[WELLS]

    def reverse(self, conductivity, h, q, h_next_bar, record_bar):
        h_next_bar = h_next_bar.copy()
        h_next_bar[WELLS] += record_bar
        h_next = self.solve(conductivity, self.right_side(h, q))
        h_bar = self.solve(conductivity, h_next_bar, "T")
        conductivity_bar = -DT * (self.M.T @ ((self.D @ h_bar) * (self.D @ h_next)))
        return conductivity_bar, h_bar, DT * h_bar[WELLS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", default="100 kB", help="budget for snapshots")
    parser.add_argument("--evaluations", type=int, default=30)
    arguments = parser.parse_args()
    checkpointing = bs.Checkpointing(memory=arguments.memory)

    aquifer = Aquifer()
    y, x = (np.mgrid[:N, :N].reshape(2, -1) + 0.5) / N
    true = 0.8 * np.exp(-30 * ((x - 0.4) ** 2 + (y - 0.6) ** 2)) - 0.5 * (y > 0.75)
    # m/day in the cell of a well: each in its turn, four steps long.
    pumping = -2000.0 * np.kron(np.eye(len(WELLS)), np.ones((4, 1)))

    def heads(log_conductivity):
        step = bs.external_step(
            aquifer, consts=np.exp(log_conductivity), y_like=np.empty(len(WELLS))
        )
        return bs.scan(step, np.zeros(N * N), pumping, checkpointing=checkpointing)[1]

    observed = heads(true)

    def misfit(log_conductivity):
        m = log_conductivity.reshape(N, N)
        roughness = np.sum((m[1:] - m[:-1]) ** 2) + np.sum((m[:, 1:] - m[:, :-1]) ** 2)
        return 0.5 * np.sum((heads(log_conductivity) - observed) ** 2) + 1e-4 * roughness

    start, direction = np.zeros(N * N), np.cos(np.arange(N * N))
    first, gradient, report = bs.value_and_grad(misfit, has_report=True)(start)
    slope = (misfit(1e-4 * direction) - misfit(-1e-4 * direction)) / 2e-4
    fit = scipy.optimize.minimize(
        bs.value_and_grad(misfit),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": arguments.evaluations},
    )
    print(report)
    print(f"gradient against a central difference: {abs(gradient @ direction / slope - 1):.1e}")
    error = np.linalg.norm(fit.x - true) / np.linalg.norm(true)
    print(
        f"misfit {first:.4g} -> {fit.fun:.4g} in {fit.nfev} evaluations with "
        f"{aquifer.n_factorisations} factorisations; relative error of log K 1 -> {error:.3f}"
    )


if __name__ == "__main__":
    main()
