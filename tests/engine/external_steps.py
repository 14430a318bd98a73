"""Steps that bring their own reverse, for the tests of `external_step`."""

from __future__ import annotations

from typing import Any

import numpy as np


class Burgers:
    """u_t + u u_x = nu u_xx with a source in one cell; the adjoint is written by hand.

    One buffer serves all results. `off` multiplies one of the cotangents, which it makes wrong.
    """

    def __init__(self, **off: float) -> None:
        self.n_advances = self.n_reverses = 0
        self.off = off
        self.buffer = np.empty(0)

    def advance(self, consts: Any, u: Any, w: Any) -> Any:
        self.n_advances += 1
        if self.buffer.shape != u.shape:
            self.buffer = np.empty_like(u)
        self.buffer[...] = traced_burgers(consts["nu"])(u, w)[0]
        return self.buffer, self.buffer[2::7]

    def reverse(self, consts: Any, u: Any, w: Any, u_bar: Any, y_bar: Any) -> Any:
        self.n_reverses += 1
        nu, bar = consts["nu"], u_bar.copy()
        bar[2::7] += y_bar
        inner = bar[1:-1]
        result = bar.copy()
        result[1:-1] -= inner * (nu + 0.1 * (u[2:] - u[:-2]))
        result[2:] += inner * (0.5 * nu - 0.1 * u[1:-1])
        result[:-2] += inner * (0.5 * nu + 0.1 * u[1:-1])
        nu_bar = np.sum(0.5 * (u[2:] - 2 * u[1:-1] + u[:-2]) * inner)
        return (
            {"nu": nu_bar * self.off.get("consts", 1.0)},
            result * self.off.get("state", 1.0),
            bar[5] * self.off.get("x", 1.0),
        )


def traced_burgers(nu: Any) -> Any:
    """The same step for the tracer."""

    def step(u: Any, w: Any) -> Any:
        u_next = u.copy()
        inner = u[1:-1]
        u_next[1:-1] += 0.5 * nu * (u[2:] - 2 * inner + u[:-2]) - 0.1 * inner * (u[2:] - u[:-2])
        u_next[5] += w
        return u_next, u_next[2::7]

    return step


class Counted:
    """u <- u - rate u^2 with a count of the steps in the state and a record of the square."""

    def advance(self, rate: Any, state: Any, x: Any) -> Any:
        u, count = state["u"], state["count"]
        return {"u": u - rate * u**2, "count": count + 1}, (u**2, count)

    def reverse(self, rate: Any, state: Any, x: Any, bar: Any, y_bar: Any) -> Any:
        u, u_bar = state["u"], bar["u"]
        assert bar["count"] is None and y_bar[1] is None
        state_bar = u_bar * (1 - 2 * rate * u) + 2 * u * y_bar[0]
        return -np.sum(u**2 * u_bar), {"u": state_bar, "count": None}, None


class Linear:
    """u <- A u for a matrix that is differentiated, or for the object's own."""

    def __init__(self, own: Any = None) -> None:
        self.own = own

    def advance(self, matrix: Any, u: Any, x: Any) -> Any:
        return (self.own if matrix is None else matrix) @ u, None

    def reverse(self, matrix: Any, u: Any, x: Any, u_bar: Any, y_bar: Any) -> Any:
        if matrix is None:
            return None, self.own.conj().T @ u_bar, None
        return np.outer(u_bar, u.conj()), matrix.conj().T @ u_bar, None


class Given:
    """Returns what it was given, whatever it is; the state is "u", with one record."""

    def __init__(self, advance: Any = None, reverse: Any = None) -> None:
        self.results = {"advance": advance, "reverse": reverse}

    def advance(self, consts: Any, state: Any, x: Any) -> Any:
        wrong = self.results["advance"]
        return (state, np.sum(state["u"])) if wrong is None else wrong(state["u"])

    def reverse(self, consts: Any, state: Any, x: Any, state_bar: Any, y_bar: Any) -> Any:
        wrong = self.results["reverse"]
        right = {"u": state_bar["u"] + y_bar}
        return ((), right, None) if wrong is None else wrong(right["u"])
