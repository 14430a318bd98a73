"""Heat: which initial temperature leads to the observed one, after a million steps in 20 MB?

    python examples/heat.py

The control is the initial state; the scan has no xs and records nothing. Storing every state would
need 8 GB.
"""

from __future__ import annotations

import argparse
import resource

import numpy as np

import backsweep as bs

N_POINTS = 1000


def step(u, _):
    """Explicit Euler with diffusivity dt / spacing^2 = 0.4; both ends are held."""
    u_next = u.copy()
    u_next[1:-1] += 0.4 * (u[2:] - 2 * u[1:-1] + u[:-2])
    return u_next, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--memory", default="20 MB", help="budget for snapshots")
    arguments = parser.parse_args()

    x = np.linspace(0, 1, N_POINTS)
    hidden = np.sin(np.pi * x) + 0.3 * np.sin(3 * np.pi * x)
    checkpointing = bs.Checkpointing(memory=arguments.memory)

    def final(initial):
        u, _ = bs.scan(step, initial, length=arguments.steps, checkpointing=checkpointing)
        return u

    observed = final(hidden)

    def misfit(initial):
        return 0.5 * np.sum((final(initial) - observed) ** 2)

    value, gradient, report = bs.value_and_grad(misfit, has_report=True)(np.zeros(N_POINTS))
    print(report)
    (scan,) = report.scans
    everything = scan.n_steps * gradient.nbytes
    print(
        f"every state: {everything / 1e9:.3g} GB; kept: {scan.snapshot_bytes_memory / 1e6:.3g} MB "
        f"at the price of {scan.n_advances / scan.n_steps:.2f} advances per step; peak resident "
        f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB, of it the "
        "most for Python and the compiler"
    )

    # The step is linear and symmetric away from the ends, so the gradient is known: the residual,
    # diffused once more.
    expected = final(-observed)
    error = np.abs(gradient - expected)[1:-1].max() / np.abs(expected).max()
    print(f"misfit {value:.6g}; gradient against the exact one: relative difference {error:.1e}")


if __name__ == "__main__":
    main()
