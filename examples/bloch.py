"""Bloch: a train of radio-frequency pulses that turns 1000 different spins to the side.

    python examples/bloch.py

Each spin sees the same pulses, but has its own resonance frequency (within +-200 Hz) and its own
amplitude of the transmitted field (within 10 %). Sought: amplitude and phase of 400 samples,
that is, one complex control, such that at the end every magnetisation points along y. Gradient by
backsweep, steps by L-BFGS-B.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize

import backsweep as bs

N_SPINS, N_STEPS = 1000, 400
DT = 10e-6  # s
E1, E2 = np.exp(-DT / 0.8), np.exp(-DT / 0.05)  # relaxation, T1 = 0.8 s, T2 = 0.05 s
UNIT = 2 * np.pi * 250  # rad/s: one unit of the control turns by 250 Hz

rng = np.random.default_rng(1)
off_resonance = 2 * np.pi * rng.uniform(-200, 200, N_SPINS)  # rad/s
transmit = rng.uniform(0.9, 1.1, N_SPINS)


def step(magnetisation, rf):
    """Rotation about the effective field by a Cayley transform, then relaxation."""
    m, mz = magnetisation  # m = mx + i my
    b = 0.5 * DT * UNIT * transmit * rf
    bz = 0.5 * DT * off_resonance
    # Cayley-Klein parameters of the rotation; |alpha|^2 + |beta|^2 = 1.
    norm = np.sqrt(1 + np.abs(b) ** 2 + bz**2)
    alpha, beta = (1 - 1j * bz) / norm, -1j * b / norm
    m_next = np.conj(alpha) ** 2 * m - beta**2 * np.conj(m) + 2 * np.conj(alpha) * beta * mz
    mz_next = (np.abs(alpha) ** 2 - np.abs(beta) ** 2) * mz
    mz_next = mz_next - 2 * np.real(alpha * np.conj(beta) * m)
    return (E2 * m_next, 1 - E1 + E1 * mz_next), None


def final(rf):
    equilibrium = (np.zeros(N_SPINS, complex), np.ones(N_SPINS))
    magnetisation, _ = bs.scan(step, equilibrium, rf)
    return magnetisation


def loss(rf):
    """Mean squared distance from the unit vector along y."""
    m, mz = final(rf)
    return np.mean(np.abs(m - 1j) ** 2 + mz**2)


def main():
    # A plain pulse of a quarter turn about -x to start from.
    rf = np.full(N_STEPS, -np.pi / 2 / (N_STEPS * DT * UNIT), complex)
    value_and_gradient = bs.value_and_grad(loss, has_report=True)
    value, gradient, report = value_and_gradient(rf)
    print(report)

    # The gradient of a real loss with respect to a complex array is dL/dx + i dL/dy.
    direction = np.exp(1j * np.arange(N_STEPS))
    numeric = (loss(rf + 1e-5 * direction) - loss(rf - 1e-5 * direction)) / 2e-5
    exact = np.sum(np.real(np.conj(gradient) * direction))
    print(f"derivative along a direction: {exact:.9f} by backsweep, {numeric:.9f} by differences")

    def evaluate(unknowns):
        value, gradient, _ = value_and_gradient(unknowns.view(complex))
        return value, gradient.view(float)

    def progress(intermediate_result):
        nonlocal n_iterations
        n_iterations += 1
        if n_iterations % 20 == 0:
            print(f"iteration {n_iterations}: loss {intermediate_result.fun:.5f}")

    n_iterations = 0
    options = {"maxiter": 100}
    result = scipy.optimize.minimize(
        evaluate, rf.view(float), jac=True, method="L-BFGS-B", callback=progress, options=options
    )
    m, _ = final(result.x.view(complex))
    print(f"loss {value:.4f} -> {result.fun:.5f}; smallest my of all spins {m.imag.min():.3f}")


if __name__ == "__main__":
    main()
