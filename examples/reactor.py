"""The exact gradient of 40,961 steps from 50 snapshots of 4 kB.

A population phi diffuses on the unit square and grows with the reactivity S (the reactor of Oktay
et al. 2021, "Randomized automatic differentiation", ICLR):

    phi_t = D lap(phi) + S phi,   phi = 0 on the boundary

S is a constant and waves in time and space, whose amplitudes are seven controls theta; the loss
is the distance of phi from a target, over the square and over time. All states would take 178 MB
in single precision; 50 snapshots, 218 kB, are enough here.

    python examples/reactor.py                     # gradient, costs, and a check
    python examples/reactor.py --memory "20 MB"    # less work with more memory
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import backsweep as bs

N, N_STEPS, DT, DIFFUSION = 33, 40_961, 1 / 4096, 0.25
THETA = (4.932, 0.05, -0.05, 0.02, -0.03, 0.04, -0.01)


def make_loss(dtype: Any, checkpointing: bs.Checkpointing, n_steps: int = N_STEPS) -> Any:
    """The loss, a function of theta.

    Parameters
    ----------
    dtype : dtype
        Of the field.
    checkpointing : Checkpointing
    n_steps : int
        Of length 1/4096 each.

    Returns
    -------
    callable theta, shape (7,) -> scalar
    """
    x, t = np.linspace(0, 1, N), DT * np.arange(n_steps)
    hill = np.outer(np.sin(np.pi * x), np.sin(np.pi * x)).astype(dtype)
    swing = np.outer(np.sin(2 * np.pi * x), np.sin(np.pi * x)).astype(dtype) / 4
    sin_x, cos_x = (f(2 * np.pi * x[1:-1, None]).astype(dtype) for f in (np.sin, np.cos))
    waves = np.stack([np.sin(np.pi * t), np.cos(np.pi * t)], axis=1).astype(dtype)
    spread = DIFFUSION * (N - 1) ** 2

    def loss(theta: Any) -> Any:
        def step(phi: Any, wave: Any) -> tuple[Any, Any]:
            sin_t, cos_t = wave[0], wave[1]
            s = theta[0] + theta[1] * sin_t + theta[2] * cos_t
            s = s + sin_x * (theta[3] * sin_t + theta[4] * cos_t)
            s = s + cos_x * (theta[5] * sin_t + theta[6] * cos_t)
            u = phi[1:-1, 1:-1]
            laplacian = phi[2:, 1:-1] + phi[:-2, 1:-1] + phi[1:-1, 2:] + phi[1:-1, :-2] - 4 * u
            new = phi.copy()
            new[1:-1, 1:-1] += DT * (spread * laplacian + s * u)
            return new, np.mean((new - hill - sin_t * swing) ** 2)

        _, distances = bs.scan(step, hill, waves, checkpointing=checkpointing)
        return DT * np.sum(distances)

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", help='for snapshots, e.g. "20 MB"; default: 50 snapshots')
    parser.add_argument("--double", action="store_true", help="in double precision")
    arguments = parser.parse_args()
    checkpointing = bs.Checkpointing(snapshots=50)
    if arguments.memory:
        checkpointing = bs.Checkpointing(memory=arguments.memory)
    dtype = np.float64 if arguments.double else np.float32
    theta = np.array(THETA, dtype)
    loss = make_loss(dtype, checkpointing)
    print(bs.plan(loss, measure=True)(theta), end="\n\n")
    value, gradient, report = bs.value_and_grad(loss, has_report=True)(theta)
    print(report)
    print(f"\nloss      {value:.11g}\ngradient  {np.array2string(gradient, precision=6)}")
    exact = make_loss(np.float64, checkpointing)
    step = 1e-5 * np.eye(7)[0]
    low, high = (exact(np.array(THETA) + sign * step) for sign in (-1, 1))
    print(f"d loss / d theta_0: {gradient[0]:.6g}, by a difference {(high - low) / 2e-5:.6g}")


if __name__ == "__main__":
    main()
