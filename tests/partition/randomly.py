"""Random programs of stencils: from a seed, the same on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import backsweep as bs
from partition.comparing import Case

N_STEPS = 4
REACH = 3


def random_case(seed: int, n_inner: int = 1) -> Case:
    """A step of several fields, what it records, and a loss of that.

    With `n_inner` the step is a loop of so many steps.
    """
    name = f"seed {seed}" + (f", {n_inner} inner steps" if n_inner > 1 else "")
    return Case(name, lambda grid: _Maker(seed, grid).build(n_inner), 1e-12, 0.0, wholes=1e-12)


class _Maker:
    """Chooses once what a step does, then does it whenever it is traced.

    A value is a field of the grid's shape; fields of other shapes come and go inside of
    operations. What was chosen is a list of functions of the values so far.
    """

    def __init__(self, seed: int, grid: tuple[int, int]) -> None:
        self.rng = np.random.default_rng([seed, 77])
        self.grid = grid
        self.n_fields = int(self.rng.integers(1, 4))
        self.models = [0.1 + 0.2 * self.rng.random(grid) for _ in range(2)]
        self.extra = [int(k) for k in self.rng.integers(-1, 3, self.n_fields)]
        """By how much a carry is longer than the grid along the axis `self.along`."""
        self.along = [int(k) for k in self.rng.integers(0, 2, self.n_fields)]

    def pick(self, *some: Any) -> Any:
        return some[int(self.rng.integers(len(some)))]

    def build(self, n_inner: int = 1) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        steps = [self.operation() for _ in range(int(self.rng.integers(3, 8)))]
        carries = [self.pick(True, True, False) for _ in range(self.n_fields)]
        before = [self.operation() for _ in range(int(self.rng.integers(0, 3)))]
        after = [self.operation() for _ in range(int(self.rng.integers(0, 3)))]
        recorded = self.records()
        forced = self.pick(True, False)
        rng, n = self.rng, self.n_fields
        state = [rng.random(self.wide(k)) for k in range(n)]
        xs = 0.1 * rng.random((N_STEPS, *self.grid)) if forced else rng.random(N_STEPS)

        def misfit(a: Any, b: Any, u: Any, x: Any) -> Any:
            given = [a, b, u]
            for f in before:
                given = [f(given), *given[:2]]

            def once(carry: Any, x: Any) -> Any:
                own = [self.narrowed(c, k) for k, c in enumerate(carry)]
                values = [*own, *given[:2]]
                for f in steps:
                    values = [f(values), *values]
                values[0] = values[0] + 0.05 * (a * b + u) + (x if forced else 0.1 * x * b)
                new = [
                    self.widened(values[k], c, k) if moves else c + 0.0
                    for k, (c, moves) in enumerate(zip(carry, carries, strict=True))
                ]
                return tuple(new), recorded(values[0])

            def step(carry: Any, x: Any) -> Any:
                if n_inner == 1:
                    return once(carry, x)
                numbers = np.arange(1.0, n_inner + 1)
                carry, y = bs.scan(lambda c, k: once(c, k * x), carry, numbers)
                return carry, 0.3 * y[0] + y[n_inner - 1]

            first = [self.widened(given[0], bs.numpy.asarray(state[0]), 0), *state[1:]]
            last, y = bs.scan(step, tuple(first), x)
            values = [self.narrowed(c, k) for k, c in enumerate(last)] + given
            for f in after:
                values = [f(values), *values]
            weights = np.cos(np.arange(float(np.prod(self.grid)))).reshape(self.grid)
            return np.sum((y - 0.2) ** 2) + 0.1 * np.sum(np.tanh(values[0]) * weights)

        return misfit, (*self.models, 0.2 * rng.random(self.grid), xs)

    # ------------------------------------------------------------------ shapes

    def wide(self, k: int) -> tuple[int, int]:
        shape = list(self.grid)
        shape[self.along[k]] += self.extra[k]
        return tuple(shape)

    def narrowed(self, c: Any, k: int) -> Any:
        """Of a carry: a field of the grid's shape."""
        axis, n = self.along[k], self.extra[k]
        if n >= 0:
            return c[_at(axis, n // 2, n // 2 + self.grid[axis])]
        return np.pad(c, [(0, -n if d == axis else 0) for d in range(2)], mode="edge")

    def widened(self, value: Any, c: Any, k: int) -> Any:
        """A carry of a field; what lies beyond the grid keeps what it was."""
        axis, n = self.along[k], self.extra[k]
        if n < 0:
            return 0.5 * (value[_at(axis, 1, None)] + value[_at(axis, 0, -1)])
        new = c * 0.9
        new[_at(axis, n // 2, n // 2 + self.grid[axis])] = value
        return new

    # ------------------------------------------------------------------ operations

    def operation(self) -> Callable[[list[Any]], Any]:
        """A function of values that gives another one, smooth and bounded."""
        kind = self.pick(
            "shift", "inner", "rolled", "padded", "masked", "written", "strided", "points",
            "joined", "product", "derivative", "sum", "turned", "rows",
        )  # fmt: skip
        return getattr(self, f"_{kind}")()

    def two(self) -> Callable[[list[Any]], tuple[Any, Any]]:
        i, j = (int(k) for k in self.rng.integers(0, 5, 2))
        return lambda v: (v[i % len(v)], v[j % len(v)])

    def shift(self) -> int:
        return int(self.rng.integers(1, REACH + 1))

    def axis(self) -> int:
        return int(self.rng.integers(0, 2))

    def _shift(self) -> Any:
        two, s, axis, sign = self.two(), self.shift(), self.axis(), self.pick(1, -1)

        def f(v: Any) -> Any:
            u, w = two(v)
            new = 0.7 * u
            to, source = _at(axis, s, None), _at(axis, None, -s)
            if sign < 0:
                to, source = source, to
            new[to] += 0.3 * np.sin(w[source])
            return new

        return f

    def _inner(self) -> Any:
        two, s, axis = self.two(), self.shift(), self.axis()
        low, high = self.shift(), self.shift()

        def f(v: Any) -> Any:
            u, w = two(v)
            new = u.copy()
            n = self.grid[axis]
            here = _at(axis, low, n - high)
            left, right = _at(axis, 0, n - high - low), _at(axis, low + high, n)
            new[here] = 0.5 * u[here] + 0.2 * w[left] * u[right] - 0.1 * s * w[right]
            return new

        return f

    def _rolled(self) -> Any:
        two, s, axis, sign = self.two(), self.shift(), self.axis(), self.pick(1, -1)
        return lambda v: 0.6 * two(v)[0] + 0.3 * np.roll(two(v)[1], sign * s, axis=axis)

    def _padded(self) -> Any:
        two, s, axis, mode = self.two(), self.shift(), self.axis(), self.pick("edge", "constant")

        def f(v: Any) -> Any:
            u, w = two(v)
            p = np.pad(w, [(s, s) if d == axis else (0, 0) for d in range(2)], mode=mode)
            return 0.5 * u + 0.2 * (p[_at(axis, 2 * s, None)] - p[_at(axis, None, -2 * s)])

        return f

    def _masked(self) -> Any:
        two, s, axis = self.two(), self.shift(), self.axis()

        def f(v: Any) -> Any:
            u, w = two(v)
            return np.where(np.roll(w, s, axis) > u, 0.8 * u, 0.5 * w) + np.maximum(0.1 * u, 0.02)

        return f

    def _written(self) -> Any:
        two, s, axis, last = self.two(), self.shift(), self.axis(), self.pick(True, False)

        def f(v: Any) -> Any:
            u, w = two(v)
            new = 0.9 * u
            line = -1 - s if last else s
            new[_index(axis, line)] = w[_index(axis, line - 1)] * 0.5
            new[_index(axis, line - 1)] += 0.1 * u[_index(axis, line)]
            return new

        return f

    def _strided(self) -> Any:
        two, k, s, axis = self.two(), self.pick(2, 3), self.shift(), self.axis()

        def f(v: Any) -> Any:
            u, w = two(v)
            new = u.copy()
            n = self.grid[axis] - s
            here = slice(s, s + n, k)
            there = slice(0, n, k)
            new[_one(axis, here)] = 0.4 * u[_one(axis, here)] + 0.3 * w[_one(axis, there)]
            return new

        return f

    def _points(self) -> Any:
        two, n = self.two(), int(self.rng.integers(1, 6))
        at = tuple(self.rng.integers(0, e, n) for e in self.grid)
        factor = self.rng.random(n)

        def f(v: Any) -> Any:
            new, w = 0.9 * two(v)[0], two(v)[1]
            np.add.at(new, at, factor)
            return new + 0.1 * w

        return f

    def _joined(self) -> Any:
        two, s, axis, sign = self.two(), self.shift(), self.axis(), self.pick(1, -1)

        def f(v: Any) -> Any:
            u, w = two(v)
            parts = [u[_at(axis, None, s)], 0.5 * w[_at(axis, None, -s)]]
            return np.concatenate(parts[::sign], axis=axis)

        return f

    def _product(self) -> Any:
        two = self.two()
        return lambda v: np.tanh(two(v)[0] * two(v)[1] + 0.1 * two(v)[0])

    def _derivative(self) -> Any:
        two, axis = self.two(), self.axis()

        def f(v: Any) -> Any:
            u, w = two(v)
            d = np.diff(u, axis=axis)
            d = d * (1 + w[_at(axis, 1, None)])
            new = 0.5 * w
            new[_at(axis, 1, -1)] += 0.2 * np.diff(d, axis=axis)
            return new

        return f

    def _sum(self) -> Any:
        two = self.two()
        return lambda v: 0.5 * two(v)[0] + 0.4 * two(v)[1]

    def _turned(self) -> Any:
        two, s = self.two(), self.shift()

        def f(v: Any) -> Any:
            u, w = two(v)
            t = u.T + 0.0
            t[s:] += 0.1 * w.T[:-s]
            return 0.8 * t.T

        return f

    def _rows(self) -> Any:
        two, axis = self.two(), self.axis()
        line = np.linspace(0.5, 1.0, self.grid[axis])
        line = line[:, None] if axis == 0 else line
        return lambda v: 0.5 * two(v)[0] * line + 0.1 * np.cos(two(v)[1])

    # ------------------------------------------------------------------ records

    def records(self) -> Callable[[Any], Any]:
        kind, n = self.pick("points", "stencil", "line", "field"), int(self.rng.integers(1, 7))
        ix, iz = (self.rng.integers(0, e, n) for e in self.grid)
        if kind == "points":
            return lambda u: u[ix, iz]
        if kind == "stencil":
            wide = np.arange(3)[None]
            rows = np.clip(ix[:, None] + wide, 0, self.grid[0] - 1)
            columns = np.broadcast_to(iz[:, None], rows.shape)
            return lambda u: np.sum(u[rows, columns] * 0.3, axis=1)
        if kind == "line":
            return lambda u: u[n % self.grid[0]] * 1.0
        return lambda u: u[:: 1 + n % 3, 1:]


def _one(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if d == axis else slice(None) for d in range(2))


def _at(axis: int, first: int | None, last: int | None) -> tuple[slice, ...]:
    return _one(axis, slice(first, last))


def _index(axis: int, k: int) -> tuple[Any, ...]:
    return tuple(k if d == axis else slice(None) for d in range(2))
