"""Which parts of every value one rank must compute: from what it keeps back to what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np

from backsweep.comm import Decomposition
from backsweep.comm.boxes import Box, hull, is_empty, volume
from backsweep.ir import Atom, Equation, Literal, Program, Var
from backsweep.passes.footprint import read_ranges, whole
from backsweep.passes.partition.placement import EXTREMA, Anchor, Placed, Placement, refused


def origin_of(box: Box) -> tuple[int, ...]:
    return tuple(lo for lo, _ in box)


def joined(pieces: Sequence[Box], more: Box) -> list[Box]:
    """Pieces and another one: those that touch become one, those far apart stay apart."""
    rest, grown = list(pieces), more
    while True:
        near = next((p for p in rest if _touch(p, grown)), None)
        if near is None:
            return [*rest, grown]
        rest.remove(near)
        grown = hull(near, grown)


def _touch(a: Box, b: Box) -> bool:
    both = hull(a, b)
    return volume(both) <= volume(a) + volume(b) or all(
        max(p, r) <= min(q, s) for (p, q), (r, s) in zip(a, b, strict=True)
    )


def segments(box: Box, shape: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Of each dimension: the ranges inside an array that a box over its period covers, in order."""
    found = []
    for (lo, hi), n in zip(box, shape, strict=True):
        cuts = [c for c in (-n, 0, n, 2 * n) if lo < c < hi]
        ends = [lo, *cuts, hi]
        found.append([(a % n, (b - 1) % n + 1) for a, b in zip(ends, ends[1:], strict=False)])
    return found


def unwrapped(box: Box, near: Box, shape: Sequence[int]) -> Box:
    """A box moved by whole periods to where it lies nearest to another one."""
    moved = []
    for (lo, hi), (first, last), n in zip(box, near, shape, strict=True):
        by = min((0, -n, n), key=lambda s: max(0, first - (lo + s), (hi + s) - last))
        moved.append((lo + by, hi + by))
    return tuple(moved)


@dataclass
class Owner:
    """What a rank of a decomposition keeps."""

    decomposition: Decomposition
    rank: int

    def owned(self, placement: Placement, shape: Sequence[int]) -> Box | None:
        """The part of a value that belongs to the rank; None where that is nothing."""
        box = tuple(self.along(a, n) for a, n in zip(placement.anchors, shape, strict=True))
        return box if self.is_here(placement) and not is_empty(box) else None

    def is_here(self, placement: Placement) -> bool:
        """Whether dimensions that are gone were in the rank's block."""
        return all(self.range(axis, at, 1, 1) == (0, 1) for axis, at in placement.fixed)

    def along(self, anchor: Anchor | None, n: int) -> tuple[int, int]:
        """The part of one dimension that belongs to the rank."""
        return (0, n) if anchor is None else self.range(anchor.axis, anchor.start, anchor.step, n)

    def range(self, axis: int, start: int, step: int, n: int) -> tuple[int, int]:
        """Indices of a dimension that belong to the rank."""
        return self.decomposition.owned(axis, start, step, n, self.rank)


@dataclass
class Points:
    """Gathers from, and scatters into, arrays that are cut: at indices known from the start.

    Attributes
    ----------
    value_of : callable
        The value of an index array, or None where it depends on more than given arrays.
    """

    placed: Placed
    owner: Owner
    value_of: Callable[[Atom], np.ndarray | None]

    def indices(self, eqn: Equation) -> list[np.ndarray]:
        """Index arrays of an equation.

        Raises
        ------
        DecompositionError
            If they are made by the program.
        """
        first = 1 if eqn.primitive.name == "gather" else 2
        found = [self.value_of(a) for a in eqn.inputs[first:]]
        if any(i is None for i in found):
            raise refused(
                eqn,
                "has indices that are only known when it runs",
                "give them as integer arrays, captured or as arguments, the same for all steps",
            )
        extents = eqn.inputs[0].type.shape
        rows = [_rows(np.asarray(i)) for i in found]
        return [np.where(i < 0, i + n, i) for i, n in zip(rows, extents, strict=False)]

    def rows(self, eqn: Equation) -> np.ndarray:
        """Rows of a gather whose middle point lies in the rank's block."""
        x = eqn.inputs[0]
        assert isinstance(x, Var)
        indices = self.indices(eqn)
        is_here = np.ones(len(indices[0]), bool)
        for index, anchor, n in zip(
            indices, self.placed.seen[x].anchors, x.type.shape, strict=False
        ):
            if anchor is not None:
                lo, hi = self.owner.range(anchor.axis, anchor.start, anchor.step, n)
                middle = index[:, index.shape[1] // 2]
                is_here &= (lo <= middle) & (middle < hi)
        return is_here

    def gather_reads(self, eqn: Equation, box: Box) -> list[Box | None]:
        """What the rows of this rank read."""
        n_points = eqn.inputs[1].type.ndim  # type: ignore[union-attr]
        rows, indices = self.rows(eqn), self.indices(eqn)
        none: list[Box | None] = [None] * len(indices)
        if not rows.any():
            return [None, *none]
        spans = [(int(i[rows].min()), int(i[rows].max()) + 1) for i in indices]
        return [(*spans, *box[n_points:]), *none]

    def is_whole(self, eqn: Equation, box: Box) -> bool:
        """Whether a scatter writes to all of its base along the dimensions that are indexed."""
        n = len(eqn.inputs) - 2
        return all(r == (0, e) for r, e in zip(box[:n], eqn.inputs[0].type.shape, strict=False))

    def scatter_reads(self, eqn: Equation, box: Box) -> list[Box | None]:
        """The base there, and of all points what belongs to the other dimensions."""
        base, value, *indices = eqn.inputs
        n_points = indices[0].type.ndim  # type: ignore[union-attr]
        part = (*whole(value.type)[:n_points], *box[len(indices) :])  # type: ignore[arg-type]
        if self.is_whole(eqn, box):
            return [box, part, *(whole(i.type) for i in indices)]  # type: ignore[arg-type]
        return [box, part if self.hits(eqn, box).any() else None, *[None] * len(indices)]

    def hits(self, eqn: Equation, box: Box) -> np.ndarray:
        """Which points, flat, lie inside a part of the base."""
        inside = [
            (lo <= i.ravel()) & (i.ravel() < hi)
            for i, (lo, hi) in zip(self.indices(eqn), box, strict=False)
        ]
        return np.logical_and.reduce(inside)


@dataclass
class Demand:
    """Parts of the values of one program that a rank needs.

    Attributes
    ----------
    pieces : dict of Var to list of Box
    """

    program: Program
    placed: Placed
    owner: Owner
    points: Points
    pieces: dict[Var, list[Box]] = field(default_factory=dict)

    def need(self, atom: Atom, box: Box | None) -> None:
        """Note that a part of a value is read or kept."""
        if isinstance(atom, Literal) or box is None or is_empty(box):
            return
        self.pieces[atom] = joined(self.pieces.get(atom, ()), box)

    def need_unwrapped(self, atom: Atom, box: Box | None) -> None:
        """As `need`, of a box that may reach over the ends of a periodic array."""
        if isinstance(atom, Literal) or box is None or is_empty(box):
            return
        for part in product(*segments(box, atom.type.shape)):
            self.need(atom, part)

    def made(self, var: Var) -> list[Box]:
        """The parts of a value that its equation makes."""
        if var in self.placed.parts:
            own = self.owner.owned(self.placed.parts[var], var.type.shape)
            return [] if own is None else [own]
        return self.pieces.get(var, [])

    def walk(self, equation: Equation) -> None:
        """Note what an equation reads."""
        (out,) = equation.outputs
        for box in self.made(out):
            for atom, part in zip(equation.inputs, self.reads(equation, box), strict=True):
                self.need(atom, part)

    def reads(self, eqn: Equation, box: Box) -> list[Box | None]:
        """What a part of the output of an equation reads of each operand."""
        name = eqn.primitive.name
        if name == "sum" or name in EXTREMA:
            return [self.summed(eqn, box)]
        if name == "gather" and self.placed.made(eqn.outputs[0]).is_partial:
            return self.points.gather_reads(eqn, box)
        if name in ("scatter", "scatter_add"):
            return self.points.scatter_reads(eqn, box)
        return list(read_ranges(eqn, box))

    def summed(self, eqn: Equation, box: Box) -> Box | None:
        """The part of an operand that this rank adds up, or of which it takes the extremum."""
        x, axes = eqn.inputs[0], eqn.params["axes"]
        assert isinstance(x, Var)
        placement, kept = self.placed.seen[x], iter(box)
        if not self.placed.made(eqn.outputs[0]).is_partial:
            return read_ranges(eqn, box)[0]
        if not self.owner.is_here(placement):
            return None
        # What is kept is whatever is asked for, of this rank's block or not.
        return tuple(
            self.owner.along(anchor, n) if k in axes else next(kept)
            for k, (anchor, n) in enumerate(zip(placement.anchors, x.type.shape, strict=True))
        )


def _rows(index: np.ndarray) -> np.ndarray:
    """As shape (rows, points of a row)."""
    n_rows = index.shape[0] if index.ndim else 1
    return index.reshape(n_rows, prod(index.shape[1:]))
