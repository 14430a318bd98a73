"""One simulation twice: as a loop that counts its steps, and as the scan that it equals."""

from __future__ import annotations

from typing import Any

import numpy as np

import backsweep as bs

U = np.sin(np.linspace(0.1, 3, 23))


def burgers_heat(u: Any, kappa: Any) -> Any:
    """One step, with fixed ends."""
    v = u.copy()
    v[1:-1] += kappa * (u[2:] - 2 * u[1:-1] + u[:-2]) - 0.02 * u[1:-1] ** 2
    return v


def counted_loop(n: Any, checkpointing: Any = None) -> Any:
    """A loss of n steps, found by counting."""

    def loss(u: Any, kappa: Any) -> Any:
        def step(carry: Any) -> Any:
            u, k = carry
            return burgers_heat(u, kappa), k + 1

        u, _ = bs.while_loop(lambda c: c[1] < n, step, (u, 0), checkpointing=checkpointing)
        return np.sum(u**2)

    return loss


def known_scan(n: int) -> Any:
    """The same loss by a scan of n steps."""

    def loss(u: Any, kappa: Any) -> Any:
        return np.sum(bs.scan(lambda u, _: (burgers_heat(u, kappa), None), u, length=n)[0] ** 2)

    return loss


def gradient_of(loss: Any, u: Any = U) -> Any:
    return bs.value_and_grad(loss, (0, 1), has_report=True)(u, np.array(0.2))


def assert_same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a[0], b[0])
    for x, y in zip(a[1], b[1], strict=True):
        np.testing.assert_array_equal(x, y)
