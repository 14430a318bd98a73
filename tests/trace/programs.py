"""Random NumPy programs for Hypothesis: views of views, in-place writes, index arrays, masks.

A program is a list of (kind, numbers). The numbers are read against the shapes that are met
while the program runs, so that every list is a valid program and shrinks well. `run` executes
it on plain arrays and on traced ones alike: it asks for shapes and dtypes only.

Fresh results are copied, because NumPy lets a result inherit the memory order of transposed
operands, on which it depends whether a later reshape is a view (docs/numpy.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

SHAPES = ((3, 4), (4,), (2, 3, 2))
LIMIT = 60
"""Values of more elements are not kept."""

Statement = tuple[str, tuple[int, ...]]


@dataclass
class Machine:
    """The variables of a program while it runs."""

    values: list[Any]
    numbers: list[int] = field(default_factory=list)

    def draw(self, n: int) -> int:
        """The next number, below n."""
        return self.numbers.pop(0) % n if self.numbers and n else 0

    def pick(self, ndim: int = 0) -> Any:
        """A variable of at least so many dimensions."""
        fitting = [v for v in self.values if v.ndim >= ndim]
        return fitting[self.draw(len(fitting))]

    def constant(self) -> float:
        return (self.draw(17) - 8) / 4

    def keep(self, value: Any) -> None:
        if np.size(value) <= LIMIT:
            self.values.append(value)

    def keep_fresh(self, value: Any) -> None:
        self.keep(value.copy())

    def slice(self, extent: int) -> slice:
        step = (1, 1, 1, -1, 2, -2)[self.draw(6)]
        a, b = self.draw(extent + 1), self.draw(extent + 1)
        low, high = min(a, b), max(a, b)
        if step > 0:
            return slice(low or None, high if high < extent else None, step)
        return slice(high - 1 if high else None, low - 1 if low else None, step)

    def index(self, value: Any) -> tuple[Any, ...]:
        """Integers, slices, a new axis, an ellipsis."""
        items: list[Any] = []
        for extent in value.shape[: 1 + self.draw(value.ndim)]:
            is_integer = extent > 0 and self.draw(4) == 0
            items.append(self.draw(2 * extent) - extent if is_integer else self.slice(extent))
        if self.draw(5) == 0:
            items.insert(self.draw(len(items) + 1), None)
        if self.draw(4) == 0:
            items.append(Ellipsis)
        return tuple(items)

    def points(self, value: Any, is_unique: bool = False) -> tuple[Any, ...]:
        """Index arrays on one or two axes."""
        extents = value.shape[: 1 + self.draw(min(2, value.ndim))]
        size = 1 + self.draw(min(extents) if is_unique else 4)
        if is_unique:
            return tuple((np.arange(size) + self.draw(n)) % n for n in extents)
        return tuple(np.array([self.draw(2 * n) - n for _ in range(size)]) for n in extents)

    def operand(self, shape: tuple[int, ...]) -> Any:
        """A variable that broadcasts to a shape, or a number."""
        fitting = [v for v in self.values if _fits(v.shape, shape)]
        k = self.draw(len(fitting) + 1)
        return fitting[k] if k < len(fitting) else self.constant()

    def axis(self, value: Any) -> int:
        return self.draw(2 * value.ndim) - value.ndim


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _arithmetic(m: Machine, x: Any, y: Any, out: Any = None) -> Any:
    function = (np.add, np.subtract, np.multiply)[m.draw(3)]
    return function(x, y) if out is None else function(x, y, out=out)


# --------------------------------------------------------------------------- statements


def _view(m: Machine) -> None:
    u = m.pick(1)
    m.keep(u[m.index(u)])


def _reshape(m: Machine) -> None:
    u = m.pick(1)
    shapes: tuple[Any, ...] = (-1, (1, -1), (u.shape[0], -1), (u.shape[-1], -1))
    if u.size:
        m.keep(u.reshape(shapes[m.draw(4)]))


def _rearranged_view(m: Machine) -> None:
    u = m.pick(1)
    views: list[Callable[[Any], Any]] = [
        lambda x: x.T,
        np.ravel,
        np.flip,
        np.squeeze,
        lambda x: np.swapaxes(x, 0, -1),
        lambda x: np.expand_dims(x, 1),
        lambda x: np.moveaxis(x, 0, -1),
        np.atleast_2d,
        lambda x: np.rot90(np.atleast_2d(x), 1 + m.draw(3)),
        lambda x: np.array_split(x, 2)[m.draw(2)],
    ]
    m.keep(views[m.draw(len(views))](u))


def _binary(m: Machine) -> None:
    u = m.pick()
    m.keep_fresh(_arithmetic(m, u, m.operand(u.shape)))


def _in_place(m: Machine) -> None:
    u = m.pick(1)
    y = m.operand(u.shape)
    kind = m.draw(3)
    if kind == 0:
        u += y
    elif kind == 1:
        u -= y
    else:
        u *= y


def _set(m: Machine) -> None:
    u = m.pick(1)
    index = m.index(u)
    u[index] = m.operand(u[index].shape)


def _augment(m: Machine) -> None:
    u = m.pick(1)
    index = m.index(u)
    y = m.operand(u[index].shape)
    if m.draw(2):
        u[index] += y
    else:
        u[index] *= y


def _into(m: Machine) -> None:
    u = m.pick(1)
    _arithmetic(m, m.operand(u.shape), m.operand(u.shape), out=u)


def _gather(m: Machine) -> None:
    u = m.pick(1)
    if 0 not in u.shape:
        m.keep_fresh(u[m.points(u)])


def _scatter(m: Machine) -> None:
    u = m.pick(1)
    if 0 in u.shape:
        return
    kind = m.draw(4)
    points = m.points(u, is_unique=kind != 3)
    y = m.operand(u[points].shape)
    if kind == 0:
        u[points] = y
    elif kind == 1:
        u[points] += y
    elif kind == 2:
        u[points] -= y
    else:
        np.add.at(u, points, y)


def _masked(m: Machine) -> None:
    u = m.pick(1)
    kind = m.draw(4)
    if kind == 0:
        u[u > m.constant()] = m.constant()
    elif kind == 1:
        u[np.arange(u.shape[0]) % 2 == 0] = m.constant()
    elif kind == 2 and u.ndim > 1 and u.shape[-1]:
        u[u[..., 0] > m.constant()] = m.constant()
    else:
        m.keep_fresh(np.where(u > m.constant(), u, m.operand(u.shape)))


def _scalar(m: Machine) -> None:
    """A scalar is a value: changing it, or where it came from, changes nothing else."""
    u = m.pick(1)
    if 0 in u.shape:
        return
    s = u[tuple(m.draw(n) for n in u.shape)]
    t = s
    s += m.constant()
    u += s
    m.keep(np.stack([s, t]))


def _moving_row(m: Machine) -> None:
    """An index that is known only while the program runs."""
    u = m.pick(1)
    if 0 in u.shape:
        return
    i = np.argmax(u.sum(tuple(range(1, u.ndim))))
    kind = m.draw(4)
    if kind == 0:
        u[i] += m.constant()
    elif kind == 1:
        u[i] = m.operand(u.shape[1:])
    elif u.ndim > 1:
        row = u[i]
        m.keep(row)
        row[0] = m.constant()
    else:
        m.keep(u[i] * np.ones(2))


def _function(m: Machine) -> None:
    u = m.pick(1)
    axis = m.axis(u)
    functions: list[Callable[[Any], Any]] = [
        lambda x: np.roll(x, 1 - m.draw(4), axis),
        lambda x: np.concatenate([x, x], axis),
        lambda x: np.stack([x, x + 1.0], axis),
        lambda x: np.diff(x, axis=axis),
        lambda x: np.pad(x, (m.draw(2), m.draw(3))),
        lambda x: np.repeat(x, 2, axis),
        lambda x: np.tile(x, 2),
        lambda x: np.clip(x, -1.0, m.constant()),
        lambda x: np.maximum(x, m.constant()),
        lambda x: np.abs(x),
        lambda x: np.copy(x[::-1]),
        lambda x: np.zeros_like(x),
        lambda x: np.full(3, 0.5, like=x),
        lambda x: np.take(x, [0, -1], axis) if x.shape[axis] else x,
    ]
    m.keep_fresh(functions[m.draw(len(functions))](u))


def _reduction(m: Machine) -> None:
    u = m.pick(1)
    if 0 in u.shape:
        return
    axis = m.axis(u) if m.draw(2) else None
    function = (np.sum, np.mean, np.max, np.min, np.cumsum)[m.draw(5)]
    m.keep(function(u, axis=axis) / u.size)


EXACT: dict[str, Callable[[Machine], None]] = {
    "view": _view,
    "reshape": _reshape,
    "rearranged_view": _rearranged_view,
    "binary": _binary,
    "in_place": _in_place,
    "set": _set,
    "augment": _augment,
    "into": _into,
    "gather": _gather,
    "scatter": _scatter,
    "masked": _masked,
    "scalar": _scalar,
    "function": _function,
}
"""Statements that use + - * and choices only: results agree bit by bit."""
ALL = {**EXACT, "reduction": _reduction, "moving_row": _moving_row}
SMOOTH = {k: v for k, v in EXACT.items() if k not in ("masked", "function")}
"""Statements without kinks, for tests of derivatives."""


def run(program: Sequence[Statement], *arrays: Any) -> tuple[Any, ...]:
    """Execute on arrays, which are changed; the values of all variables that are left."""
    m = Machine(list(arrays))
    for kind, numbers in program:
        m.numbers = list(numbers)
        ALL[kind](m)
    return tuple(m.values)


def programs(kinds: Sequence[str] = tuple(ALL), max_size: int = 8) -> st.SearchStrategy[Any]:
    """Programs of up to `max_size` statements of the given kinds."""
    numbers = st.tuples(*[st.integers(0, 11)] * 12)
    statement = st.tuples(st.sampled_from(tuple(kinds)), numbers)
    return st.lists(statement, min_size=1, max_size=max_size)


def arguments(seed: int = 0, dtype: Any = np.float64) -> list[np.ndarray]:
    """Arrays for a program: multiples of 1/8, so that sums of few are exact."""
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-20, 21, shape) / 8 for shape in SHAPES]
    if np.dtype(dtype).kind == "c":
        arrays = [a + 1j * a[::-1] for a in arrays]
    return [a.astype(dtype) for a in arrays]
