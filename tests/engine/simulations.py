"""Three simulations on which the whole engine is tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import backsweep as bs

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """A loss of several arguments, made for a checkpointing, and where to take its gradient."""

    make_loss: Callable[[Any], Loss]
    args: tuple[Any, ...]
    n_steps: int

    def value_and_grad(self, checkpointing: Any = None) -> tuple[Any, Any, Any]:
        argnums = tuple(range(len(self.args)))
        loss = self.make_loss(checkpointing)
        return bs.value_and_grad(loss, argnums, has_report=True)(*self.args)


# --------------------------------------------------------------------------- Burgers


def burgers_step(nu: Any) -> Any:
    """One step of u_t + u u_x = nu u_xx with fixed ends; central differences."""

    def step(u: Any, _: Any) -> Any:
        u_next = u.copy()
        inner = u[1:-1]
        slope = u[2:] - u[:-2]
        u_next[1:-1] += 0.5 * nu * (u[2:] - 2 * inner + u[:-2]) - 0.1 * inner * slope
        return u_next, None

    return step


def burgers_loss(checkpointing: Any = None, n_steps: int = 120) -> Loss:
    def loss(u: Any, nu: Any) -> Any:
        u, _ = bs.scan(burgers_step(nu), u, length=n_steps, checkpointing=checkpointing)
        return 0.5 * np.sum((u - 0.1) ** 2)

    return loss


def burgers(n: int = 61) -> Problem:
    x = np.linspace(0, 2 * np.pi, n)
    return Problem(burgers_loss, (np.sin(x) + 0.2, np.array(0.3)), 120)


# --------------------------------------------------------------------------- acoustics

N_STEPS = 120
ROWS, COLUMNS = np.full(7, 6), np.arange(5, 33, 4)


def _laplacian(u: Any) -> Any:
    n_z, n_x = u.shape
    total = -5 * u[2:-2, 2:-2]
    for offset, weight in ((1, 4 / 3), (2, -1 / 12)):
        low, high = 2 - offset, 2 + offset
        total = total + weight * (
            u[low : n_z - high, 2:-2]
            + u[high : n_z - low, 2:-2]
            + u[2:-2, low : n_x - high]
            + u[2:-2, high : n_x - low]
        )
    return total


def _sponge(shape: tuple[int, int]) -> np.ndarray:
    n_z, n_x = shape
    z, x = np.mgrid[:n_z, :n_x]
    distance = np.minimum(np.minimum(x, n_x - 1 - x), np.minimum(z, n_z - 1 - z))
    return (0.1 * (1 - distance / 6).clip(0) ** 2).astype(np.float32)


def acoustic_loss(
    checkpointing: Any = None, source: tuple[int, int] = (15, 17), rows: Any = ROWS
) -> Loss:
    rng = np.random.default_rng(3)
    observed = 0.1 * rng.standard_normal((N_STEPS, len(rows))).astype(np.float32)

    def loss(c2: Any, wavelet: Any) -> Any:
        sigma = _sponge(c2.shape)

        def step(carry: Any, sample: Any) -> Any:
            u, u_prev = carry
            u_next = (2 - sigma) * u - (1 - sigma) * u_prev
            u_next[2:-2, 2:-2] += c2[2:-2, 2:-2] * _laplacian(u)
            u_next[source] += sample
            return (u_next, u), u_next[rows, COLUMNS]

        rest = np.zeros(c2.shape, np.float32)
        _, traces = bs.scan(step, (rest, rest), wavelet, checkpointing=checkpointing)
        return 0.5 * np.sum((traces - observed) ** 2)

    return loss


def acoustic(shape: tuple[int, int] = (30, 34)) -> Problem:
    rng = np.random.default_rng(1)
    c2 = (0.1 + 0.05 * rng.random(shape)).astype(np.float32)
    t = 0.1 * (np.arange(N_STEPS) - 20)
    wavelet = ((1 - 2 * t**2) * np.exp(-(t**2))).astype(np.float32)
    return Problem(acoustic_loss, (c2, wavelet), N_STEPS)


# --------------------------------------------------------------------------- Schroedinger


def schroedinger_loss(checkpointing: Any = None) -> Loss:
    """Leapfrog i psi_t = -psi_xx / 2 + V psi on a ring; the loss is real, the state complex."""

    def loss(potential: Any, psi: Any) -> Any:
        target = np.exp(2j * np.pi * np.arange(psi.size) / psi.size)

        def step(carry: Any, field: Any) -> Any:
            psi, psi_prev = carry
            curvature = np.roll(psi, 1) - 2 * psi + np.roll(psi, -1)
            energy = (potential + field) * psi - 0.5 * curvature
            psi_next = psi_prev - 0.1j * energy
            return (psi_next, psi), np.abs(psi_next[3])

        fields = 0.1 * np.sin(0.2 * np.arange(120))
        carry, records = bs.scan(step, (psi, psi), fields, checkpointing=checkpointing)
        overlap = np.sum(np.conj(target) * carry[0])
        return np.abs(overlap) ** 2 + np.sum(records**2)

    return loss


def schroedinger(n: int = 48) -> Problem:
    x = np.arange(n) / n
    psi = np.exp(-20 * (x - 0.5) ** 2 + 6j * np.pi * x)
    return Problem(schroedinger_loss, (np.cos(2 * np.pi * x), psi), 120)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "burgers": burgers,
    "acoustic": acoustic,
    "schroedinger": schroedinger,
}
LARGE: dict[str, Callable[[], Problem]] = {
    "burgers": lambda: burgers(5003),
    "acoustic": lambda: acoustic((70, 66)),
    "schroedinger": lambda: schroedinger(4101),
}
"""Large enough that threads share the loops."""


if __name__ == "__main__":
    # A second process: fingerprints of each problem under binomial checkpointing.
    found = {}
    for name in sys.argv[1:]:
        report = PROBLEMS[name]().value_and_grad(bs.Checkpointing(snapshots=5))[2]
        found[name] = [report.value_fingerprint, report.gradient_fingerprint]
    print(json.dumps(found))
