"""Where the elements of a value belong: which of its dimensions run along which axis of the grid.

An *anchor* says which grid coordinate an index of a dimension stands for. It decides who adds an
element to a sum and who keeps it, never what a value is: a dimension without an anchor may be
computed by any rank, over any range. A *partial* value is the exception: what it stands for is the
sum of what the ranks hold.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Atom, Equation, Literal, Var
from backsweep.primitives.access import only_ones_differ

LINEAR = {"neg", "mul", "div", "cast", "real", "imag", "conj"}
"""Elementwise operations that may be done before the ranks' parts are added up."""

MOVES = {"slice", "pad", "broadcast", "transpose", "reshape", "sum", "stop_gradient"}
"""Linear operations of one operand that change no element."""

EXTREMA = ("reduce_max", "reduce_min")

LONGEST_WHOLE_SUM = 64
"""Elements of a sum that every rank that needs it may add up all of."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Index i of a dimension stands for coordinate start + step i along an axis of the grid.

    `cells` is the number of cells of the grid along it.
    """

    axis: int
    start: int
    step: int
    cells: int

    def at(self, index: int) -> int:
        return self.start + self.step * index

    def moved(self, start: int, step: int) -> Anchor:
        """Of what reads index start + step i."""
        return Anchor(self.axis, self.start + self.step * start, self.step * step, self.cells)

    def placed(self, start: int, step: int) -> Anchor | None:
        """Of what is written to index start + step i."""
        if self.step % step:
            return None
        own = self.step // step
        return Anchor(self.axis, self.start - own * start, own, self.cells)


Anchors = tuple[Anchor | None, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the elements of a value belong.

    Attributes
    ----------
    anchors : tuple of Anchor or None
        One for each dimension.
    fixed : tuple of (axis, coordinate)
        Of dimensions of one element that are gone: the value belongs to the ranks there.
    is_partial : bool
        The value is the sum over ranks of what they hold.
    """

    anchors: Anchors
    fixed: tuple[tuple[int, int], ...] = ()
    is_partial: bool = False

    @property
    def is_cut(self) -> bool:
        return any(a is not None for a in self.anchors)

    @property
    def has_owner(self) -> bool:
        """Whether not every rank that could compute an element keeps it."""
        return self.is_cut or bool(self.fixed)


def nowhere(type: Any) -> Placement:
    """The placement of what every rank has."""
    return Placement((None,) * len(type.shape))


class NeedsSum(Exception):
    """A partial value must be added up over ranks before an equation can use it."""

    def __init__(self, var: Var) -> None:
        super().__init__(var.name)
        self.var = var


@dataclass
class Placed:
    """Where the values of one program belong.

    Attributes
    ----------
    seen : dict
        As those who read a value see it.
    parts : dict
        Of values that are added up over ranks where they are made: as they are before.
    """

    seen: dict[Var, Placement]
    parts: dict[Var, Placement]

    def of(self, atom: Atom) -> Placement:
        return nowhere(atom.type) if isinstance(atom, Literal) else self.seen[atom]

    def made(self, var: Var) -> Placement:
        """As its equation makes it."""
        return self.parts.get(var, self.seen[var])


Rule = Callable[[Equation, list[Placement]], Placement]


def place(eqn: Equation, operands: list[Placement]) -> Placement:
    """Where the (only) output of an equation belongs.

    Raises
    ------
    NeedsSum
    """
    rule = _RULES.get(eqn.primitive.name, _elementwise)
    result = rule(eqn, operands)
    partial = [k for k, o in enumerate(operands) if o.is_partial]
    if partial and not _keeps_parts(eqn, operands, partial, result):
        var = eqn.inputs[partial[0]]
        assert isinstance(var, Var)
        raise NeedsSum(var)
    return replace(result, is_partial=result.is_partial or bool(partial))


def _keeps_parts(
    eqn: Equation, operands: list[Placement], partial: list[int], result: Placement
) -> bool:
    """Whether an equation may be done before the ranks' parts of its operands are added up."""
    name, first = eqn.primitive.name, operands[partial[0]]
    if name in MOVES:
        lost = {a.axis for a in first.anchors if a} - {a.axis for a in result.anchors if a}
        return name == "sum" or not (lost or result.fixed)
    if name in LINEAR:
        others = [o for k, o in enumerate(operands) if k != partial[0]]
        fits = all(not o.fixed and _within(o.anchors, first.anchors) for o in others)
        return fits and (partial == [0] or (name == "mul" and len(partial) == 1))
    if name in ("add", "sub"):
        return (
            len(partial) == len(eqn.inputs) and len({(o.anchors, o.fixed) for o in operands}) == 1
        )
    if name == "scatter_add":
        return partial == [0, 1] and not any(o.has_owner for o in operands)
    return False


def _within(some: Anchors, all_: Anchors) -> bool:
    if not any(some):
        return True
    return len(some) == len(all_) and all(a in (None, b) for a, b in zip(some, all_, strict=True))


def _joined(placements: Sequence[tuple[Anchors, tuple[tuple[int, int], ...]]], n: int) -> Placement:
    anchors: list[Anchor | None] = [None] * n
    fixed: tuple[tuple[int, int], ...] = ()
    for own, own_fixed in placements:
        taken = {a.axis for a in anchors if a is not None}
        for k, a in enumerate(own):
            if anchors[k] is None and a is not None and a.axis not in taken:
                anchors[k] = a
        fixed = fixed or own_fixed
    cut = {a.axis for a in anchors if a is not None}
    return Placement(tuple(anchors), tuple(f for f in fixed if f[0] not in cut))


def _elementwise(eqn: Equation, operands: list[Placement]) -> Placement:
    n = len(eqn.outputs[0].type.shape)
    full = [(o.anchors, o.fixed) for o in operands if len(o.anchors) == n]
    return _joined(full, n)


def _slice(eqn: Equation, operands: list[Placement]) -> Placement:
    p, (x,) = eqn.params, operands
    moved = [
        a and a.moved(start, step)
        for a, start, step in zip(x.anchors, p["starts"], p["steps"], strict=True)
    ]
    return Placement(tuple(moved), x.fixed)


def _put(eqn: Equation, operands: list[Placement]) -> Placement:
    p, value = eqn.params, operands[-1]
    placed = [
        a and a.placed(start, step)
        for a, start, step in zip(value.anchors, p["starts"], p["steps"], strict=True)
    ]
    own = (tuple(placed), value.fixed)
    others = [(o.anchors, o.fixed) for o in operands[:-1]]
    return _joined([*others, own], len(placed))


def _broadcast(eqn: Equation, operands: list[Placement]) -> Placement:
    shape, (x,) = eqn.params["shape"], operands
    anchors: list[Anchor | None] = [None] * len(shape)
    in_shape = eqn.inputs[0].type.shape
    for a, extent, dim in zip(x.anchors, in_shape, eqn.params["dims"], strict=True):
        anchors[dim] = a if extent == shape[dim] else None
    return Placement(tuple(anchors))


def _transpose(eqn: Equation, operands: list[Placement]) -> Placement:
    (x,) = operands
    return Placement(tuple(x.anchors[k] for k in eqn.params["axes"]), x.fixed)


def _reshape(eqn: Equation, operands: list[Placement]) -> Placement:
    (x,), before, after = operands, eqn.inputs[0].type.shape, eqn.outputs[0].type.shape
    if not only_ones_differ(before, after):
        if x.is_cut:
            raise refused(eqn, "folds a dimension of an array that is cut")
        return Placement((None,) * len(after), x.fixed)
    kept = iter([a for a, n in zip(x.anchors, before, strict=True) if n != 1])
    anchors = tuple(next(kept) if n != 1 else None for n in after)
    gone = [a for a, n in zip(x.anchors, before, strict=True) if n == 1 and a is not None]
    return Placement(anchors, x.fixed + tuple((a.axis, a.start) for a in gone))


def _sum(eqn: Equation, operands: list[Placement]) -> Placement:
    (x,), axes, shape = operands, eqn.params["axes"], eqn.inputs[0].type.shape
    kept = tuple(a for k, a in enumerate(x.anchors) if k not in axes)
    summed = [(a, shape[k]) for k, a in enumerate(x.anchors) if k in axes and a is not None]
    if not is_shared_out(x, axes, shape):
        return Placement(kept, x.fixed + tuple((a.axis, a.at(n // 2)) for a, n in summed))
    return Placement(kept, is_partial=bool(summed) or bool(x.fixed))


def is_shared_out(x: Placement, axes: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether each rank adds its part of a sum: of more than a few elements, across the grid.

    A short sum, such as the cotangent of an edge that was repeated, is whole where it is needed,
    so that its bits are those of one process.
    """
    summed = [(a, shape[k]) for k, a in enumerate(x.anchors) if k in axes and a is not None]
    if not summed or x.is_partial:
        return True
    size = prod(shape[k] for k in axes)
    return size > LONGEST_WHOLE_SUM or any(2 * n > a.cells for a, n in summed)


def _extremum(eqn: Equation, operands: list[Placement]) -> Placement:
    """Of what each rank finds in its part; put together at once, for nothing goes through it."""
    (x,), axes = operands, eqn.params["axes"]
    kept = tuple(a for k, a in enumerate(x.anchors) if k not in axes)
    if any(x.anchors[k] for k in axes):
        return Placement(kept, is_partial=True)
    return Placement(kept, x.fixed)


def of_nothing(eqn: Equation) -> Literal:
    """What an extremum of nothing is."""
    type = eqn.outputs[0].type
    assert isinstance(type, ArrayType)
    is_max, dtype = eqn.primitive.name == "reduce_max", type.dtype
    if dtype.kind == "f":
        value = -np.inf if is_max else np.inf
    elif dtype.kind == "b":
        value = not is_max
    else:
        value = np.iinfo(dtype).min if is_max else np.iinfo(dtype).max
    return Literal(value, ArrayType((), dtype))


def _concatenate(eqn: Equation, operands: list[Placement]) -> Placement:
    axis, at, found = eqn.params["axis"], 0, []
    for x, operand in zip(eqn.inputs, operands, strict=True):
        anchors = list(operand.anchors)
        anchor = anchors[axis]
        anchors[axis] = anchor and anchor.placed(at, 1)
        found.append((tuple(anchors), operand.fixed))
        at += x.type.shape[axis]
    return _joined(found, eqn.outputs[0].type.ndim)  # type: ignore[union-attr]


def _gather(eqn: Equation, operands: list[Placement]) -> Placement:
    x, indices = operands[0], operands[1:]
    is_read = any(a is not None for a in x.anchors[: len(indices)])
    points = indices[0].anchors
    return Placement(points + x.anchors[len(indices) :], is_partial=is_read)


def _base(eqn: Equation, operands: list[Placement]) -> Placement:
    return Placement(operands[0].anchors, operands[0].fixed)


def _einsum(eqn: Equation, operands: list[Placement]) -> Placement:
    left, out = eqn.params["subscripts"].split("->")
    found: dict[str, Anchor | None] = {}
    for letters, operand in zip(left.split(","), operands, strict=True):
        for letter, anchor in zip(letters, operand.anchors, strict=True):
            found[letter] = found.get(letter) or anchor
    return Placement(tuple(found[c] for c in out))


def _same(eqn: Equation, operands: list[Placement]) -> Placement:
    return operands[0]


_RULES: dict[str, Rule] = {
    "slice": _slice,
    "pad": _put,
    "update": _put,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "sum": _sum,
    "reduce_max": _extremum,
    "reduce_min": _extremum,
    "concatenate": _concatenate,
    "gather": _gather,
    "scatter": _base,
    "scatter_add": _base,
    "einsum": _einsum,
    "cumsum": _same,
    "stop_gradient": _same,
    "argmax": lambda eqn, operands: Placement(operands[0].anchors[:-1]),
    "argmin": lambda eqn, operands: Placement(operands[0].anchors[:-1]),
    "iota": lambda eqn, operands: nowhere(eqn.outputs[0].type),
}


ANOTHER_AXIS = "cut the grid along another axis (Decomposition(axes=...)), or write it differently"


def refused(eqn: Equation, why: str, advice: str = ANOTHER_AXIS) -> DecompositionError:
    """An equation that cannot be cut."""
    where = f" ({located(eqn)})" if eqn.source is not None else ""
    return DecompositionError(f"{eqn.primitive.name}{where} {why}: {advice}")


def located(eqn: Equation) -> str:
    """Where the user wrote an equation."""
    source = eqn.source
    if source is None:
        return ""
    text = source.text or linecache.getline(source.file, source.line)
    return f"{source}: {text.strip()}" if text.strip() else str(source)
