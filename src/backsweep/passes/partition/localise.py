"""One rank's program: the equations of a global one on the ranges that the rank needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backsweep.comm.boxes import Box, box_shape, is_empty, is_inside
from backsweep.ir import ArrayType, Atom, Builder, Equation, Literal, Var
from backsweep.ir.builder import scalar
from backsweep.passes.footprint import whole
from backsweep.passes.partition.demand import Demand, origin_of, segments, unwrapped
from backsweep.passes.partition.placement import EXTREMA, of_nothing, refused
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as g
from backsweep.primitives import index as ix
from backsweep.primitives.access import only_ones_differ
from backsweep.primitives.communication import allreduce_max, allreduce_min, allreduce_sum
from backsweep.primitives.shape import broadcast, full, reshape, zeros


@dataclass
class Localiser:
    """Builds the local program of one rank.

    Attributes
    ----------
    demand : Demand
        Of the rank, complete.
    local : dict
        Parts of global values that the local program has: their boxes and atoms.
    extras : list
        Inputs that the global program does not have, with their values: index arrays.
    """

    demand: Demand
    builder: Builder = field(default_factory=Builder)
    local: dict[Var, list[tuple[Box, Atom]]] = field(default_factory=dict)
    extras: list[tuple[Var, np.ndarray]] = field(default_factory=list)
    whole_inputs: dict[Var, tuple[Box, Var]] = field(default_factory=dict)
    """Inputs of the local program by those of the global one, and their boxes."""
    rooms: dict[Var, tuple[Box, Box]] = field(default_factory=dict)
    """Patched values that are made with room around them: the part there is and its room."""

    def extra(self, value: np.ndarray) -> Var:
        """An input for an array; equal arrays share one."""
        value = np.ascontiguousarray(value).reshape(np.shape(value))
        for var, known in self.extras:
            if same_array(known, value):
                return var
        var = Var(ArrayType(value.shape, value.dtype))
        self.extras.append((var, value))
        return var

    def has(self, var: Var, box: Box, atom: Atom) -> None:
        """Note that an atom of the local program is a part of a global value."""
        self.local.setdefault(var, []).append((box, atom))

    def get(self, atom: Atom, box: Box) -> Atom:
        """A part of a value that the local program has."""
        if isinstance(atom, Literal):
            return atom
        for own, local in self.local.get(atom, ()):
            if is_inside(box, own):
                return self.cut(local, own, box)
        raise AssertionError(f"{atom.name or 'a value'}: {box} is not in this rank's program")

    def get_unwrapped(self, atom: Atom, box: Box) -> Atom:
        """A part that may reach over the ends of a periodic array."""
        if isinstance(atom, Literal):
            return full(self.builder, atom, box_shape(box))
        pieces = segments(box, atom.type.shape)

        def along(axis: int, chosen: Box) -> Atom:
            if axis == len(box):
                return self.get(atom, chosen)
            parts = [along(axis + 1, (*chosen, part)) for part in pieces[axis]]
            return parts[0] if len(parts) == 1 else self.joined(parts, axis)

        return along(0, ())

    def joined(self, parts: list[Atom], axis: int) -> Atom:
        return self.builder(ix.concatenate, *parts, axis=axis)

    def has_unwrapped(
        self,
        var: Var,
        layout: Box,
        atom: Atom,
        pieces: Sequence[Box],
        right: Box | None = None,
    ) -> None:
        """Note the pieces of a global value that lie in an atom whose box may be unwrapped.

        `right` is the part of the layout that holds them, where that is not all of it.
        """
        part = layout if right is None else right
        for piece in pieces:
            inside = unwrapped(piece, part, var.type.shape)
            if is_inside(inside, part):
                self.has(var, piece, self.cut(atom, layout, inside))

    def cut(self, atom: Atom, own: Box, box: Box) -> Atom:
        """Of an atom that holds one box, another one inside."""
        if own == box:
            return atom
        starts = tuple(a - b for a, b in zip(origin_of(box), origin_of(own), strict=True))
        steps = (1,) * len(box)
        return self.builder(ix.slice_, atom, starts=starts, steps=steps, sizes=box_shape(box))

    def placed(self, atom: Atom, box: Box, into: Box) -> Atom:
        """A part in a larger box, zeros around it."""
        if box == into:
            return atom
        starts = tuple(a - b for a, b in zip(origin_of(box), origin_of(into), strict=True))
        return self.builder(
            ix.pad, atom, shape=box_shape(into), starts=starts, steps=(1,) * len(box)
        )

    def nothing(self, type: ArrayType) -> Atom:
        """An array without elements, where a rank holds nothing of a value."""
        return zeros(self.builder, ArrayType((0,) * type.ndim, type.dtype))

    def add(self, eqn: Equation) -> None:
        """Append an equation for each part of its output that the rank needs."""
        self.builder.source = eqn.source
        (out,) = eqn.outputs
        made = self.demand.made(out)
        if out in self.rooms:
            self._patch_in_room(eqn)
            return
        parts = [(box, self.emit(eqn, box)) for box in made]
        if out in self.demand.placed.parts:
            is_extremum = eqn.primitive.name in EXTREMA
            parts = [self.extremum(eqn, parts) if is_extremum else self.summed_up(out, parts)]
        for box, atom in parts:
            self.has(out, box, atom)

    def summed_up(self, var: Var, parts: list[tuple[Box, Atom]]) -> tuple[Box, Atom]:
        """The sum over ranks of a partial value, whole on every rank."""
        assert isinstance(var.type, ArrayType)
        everywhere = whole(var.type)
        if parts:
            ((box, atom),) = parts
            mine = self.placed(atom, box, everywhere)
        else:
            mine = zeros(self.builder, ArrayType(var.type.shape, var.type.dtype))
        comm = self.demand.owner.decomposition.comm
        return everywhere, self.builder(allreduce_sum, mine, comm=comm)

    def extremum(self, eqn: Equation, parts: list[tuple[Box, Atom]]) -> tuple[Box, Atom]:
        """Of the extrema of all ranks, whole on every rank."""
        type = eqn.outputs[0].type
        assert isinstance(type, ArrayType)
        everywhere = whole(type)
        mine: Atom = full(self.builder, of_nothing(eqn), type.shape)
        if parts:
            ((box, atom),) = parts
            ones = (1,) * type.ndim
            mine = self.builder(ix.update, mine, atom, starts=origin_of(box), steps=ones)
        reduce = allreduce_max if eqn.primitive.name == "reduce_max" else allreduce_min
        comm = self.demand.owner.decomposition.comm
        return everywhere, self.builder(reduce, mine, comm=comm)

    def emit(self, eqn: Equation, box: Box) -> Atom:
        """The part of an equation's output in a box."""
        name = eqn.primitive.name
        rule = getattr(self, f"_{name}", None)
        if rule is not None:
            return rule(eqn, box)
        operands = [
            self.get(a, part) if part is not None else a
            for a, part in zip(eqn.inputs, self.demand.reads(eqn, box), strict=True)
        ]
        return self.builder(eqn.primitive, *operands, **eqn.params)

    # ------------------------------------------------------------------ index rules

    def _slice(self, eqn: Equation, box: Box) -> Atom:
        p, (part,) = eqn.params, self.demand.reads(eqn, box)
        assert part is not None
        local = self.get(eqn.inputs[0], part)
        if all(s == 1 for s in p["steps"]):
            return local
        starts = tuple(
            start + step * lo - first
            for start, step, (lo, _), (first, _) in zip(
                p["starts"], p["steps"], box, part, strict=True
            )
        )
        return self.builder(ix.slice_, local, starts=starts, steps=p["steps"], sizes=box_shape(box))

    def _pad(self, eqn: Equation, box: Box) -> Atom:
        (part,) = self.demand.reads(eqn, box)
        type = ArrayType(box_shape(box), eqn.outputs[0].type.dtype)  # type: ignore[union-attr]
        if part is None:
            return zeros(self.builder, type)
        local, starts, is_all = self._region(eqn, part, box)
        if is_all:
            return local
        x = eqn.inputs[0]
        if isinstance(x, Var) and all(s == 1 for s in eqn.params["steps"]):
            return self._part_of_pad(x, eqn.params["starts"], part, box)
        return self.builder(
            ix.pad, local, shape=box_shape(box), starts=starts, steps=eqn.params["steps"]
        )

    def _part_of_pad(self, x: Var, starts: tuple[int, ...], part: Box, box: Box) -> Atom:
        """All that the rank has of x among zeros, then the box: a stencil's pads have one x."""
        own, local = next((b, a) for b, a in self.local[x] if is_inside(part, b))
        first = [s + lo - f for s, (lo, _), (f, _) in zip(starts, own, box, strict=True)]
        extents, sizes = box_shape(own), box_shape(box)
        before = tuple(max(f, 0) for f in first)
        room = tuple(
            max(f + n, size) + b - f
            for f, n, size, b in zip(first, extents, sizes, before, strict=True)
        )
        padded = self.builder(ix.pad, local, shape=room, starts=before, steps=(1,) * len(box))
        cut = tuple(max(-f, 0) for f in first)
        return self.builder(ix.slice_, padded, starts=cut, steps=(1,) * len(box), sizes=sizes)

    def _update(self, eqn: Equation, box: Box) -> Atom:
        whole, part = self.demand.reads(eqn, box)
        assert whole is not None
        if part is None:
            return self.get(eqn.inputs[0], whole)
        local, starts, is_all = self._region(eqn, part, box)
        if is_all:
            return local
        base = self.get(eqn.inputs[0], whole)
        if isinstance(base, Literal):
            base = full(self.builder, base, box_shape(box))
        return self.builder(ix.update, base, local, starts=starts, steps=eqn.params["steps"])

    def _region(self, eqn: Equation, part: Box, box: Box) -> tuple[Atom, tuple[int, ...], bool]:
        """A part of a value that is written into a region, and where; whether it fills a box."""
        p = eqn.params
        starts = tuple(
            start + step * lo - first
            for start, step, (lo, _), (first, _) in zip(
                p["starts"], p["steps"], part, box, strict=True
            )
        )
        is_all = box_shape(part) == box_shape(box) and all(
            step == 1 or hi - lo == 1 for step, (lo, hi) in zip(p["steps"], box, strict=True)
        )
        return self.get(eqn.inputs[-1], part), starts, is_all

    def _broadcast(self, eqn: Equation, box: Box) -> Atom:
        x, p = eqn.inputs[0], eqn.params
        if isinstance(x, Literal):
            return full(self.builder, x, box_shape(box))
        (part,) = self.demand.reads(eqn, box)
        local = self.get(x, part or ())
        return self.builder(broadcast, local, shape=box_shape(box), dims=p["dims"])

    def _reshape(self, eqn: Equation, box: Box) -> Atom:
        (part,) = self.demand.reads(eqn, box)
        assert part is not None
        local, n_in = self.get(eqn.inputs[0], part), eqn.inputs[0].type.shape
        extents = box_shape(part)
        if only_ones_differ(n_in, eqn.params["shape"]):
            return self.builder(reshape, local, shape=box_shape(box))
        if extents != n_in:
            raise refused(eqn, "mixes what belongs to different ranks")
        out = self.builder(reshape, local, shape=eqn.params["shape"])
        return self.cut(out, tuple((0, n) for n in eqn.params["shape"]), box)

    def _concatenate(self, eqn: Equation, box: Box) -> Atom:
        axis, at, parts = eqn.params["axis"], 0, []
        for x in eqn.inputs:
            n = x.type.shape[axis]
            lo, hi = max(box[axis][0] - at, 0), min(box[axis][1] - at, n)
            if lo < hi:
                part = (*box[:axis], (lo, hi), *box[axis + 1 :])
                parts.append(self.get(x, part))
            at += n
        if len(parts) == 1:
            return parts[0]
        return self.joined(parts, axis)

    def _iota(self, eqn: Equation, box: Box) -> Atom:
        p = eqn.params
        line = self.builder(ix.iota, shape=box_shape(box), axis=p["axis"], dtype=p["dtype"])
        first = box[p["axis"]][0]
        return self.builder(ew.add, line, scalar(first, line)) if first else line

    def _sum(self, eqn: Equation, box: Box) -> Atom:
        part = self.demand.summed(eqn, box)
        if part is None or is_empty(part):
            type = ArrayType(box_shape(box), eqn.outputs[0].type.dtype)  # type: ignore[union-attr]
            return zeros(self.builder, type)
        return self.builder(eqn.primitive, self.get(eqn.inputs[0], part), **eqn.params)

    def _reduce_max(self, eqn: Equation, box: Box) -> Atom:
        part = self.demand.summed(eqn, box)
        if part is None or is_empty(part):
            return full(self.builder, of_nothing(eqn), box_shape(box))
        params = {"axes": eqn.params["axes"]}
        return self.builder(eqn.primitive, self.get(eqn.inputs[0], part), **params)

    _reduce_min = _reduce_max

    def _cumsum(self, eqn: Equation, box: Box) -> Atom:
        (part,) = self.demand.reads(eqn, box)
        assert part is not None
        return self.cut(
            self.builder(eqn.primitive, self.get(eqn.inputs[0], part), **eqn.params), part, box
        )

    # ------------------------------------------------------------------ points

    def _gather(self, eqn: Equation, box: Box) -> Atom:
        points = self.demand.points
        if not self.demand.placed.made(eqn.outputs[0]).is_partial:
            return self._gather_whole(eqn, box)
        n_points = eqn.inputs[1].type.ndim  # type: ignore[union-attr]
        type = ArrayType(box_shape(box), eqn.outputs[0].type.dtype)  # type: ignore[union-attr]
        part = points.gather_reads(eqn, box)[0]
        rows = points.rows(eqn)
        if n_points:
            rows = rows[slice(*box[0])]
        if part is None or not rows.any():
            return zeros(self.builder, type)
        shape = eqn.inputs[1].type.shape
        inside = tuple(slice(*r) for r in box[:n_points])
        indices = [
            self.extra(np.clip(i.reshape(shape)[inside] - lo, 0, hi - lo - 1))
            for i, (lo, hi) in zip(points.indices(eqn), part, strict=False)
        ]
        local = self.get(eqn.inputs[0], part)
        found = self.builder(g.gather, local, *indices, **eqn.params)
        if rows.all():
            return found
        mask = self.builder(broadcast, self.extra(rows), shape=type.shape, dims=(0,))
        return self.builder(ew.select, mask, found, scalar(0, found))

    def _gather_whole(self, eqn: Equation, box: Box) -> Atom:
        reads = self.demand.reads(eqn, box)
        operands = [
            self.get(a, part) for a, part in zip(eqn.inputs, reads, strict=True) if part is not None
        ]
        return self.builder(g.gather, *operands, **eqn.params)

    def _scatter_add(self, eqn: Equation, box: Box) -> Atom:
        base = self.get(eqn.inputs[0], box)
        if isinstance(base, Literal):
            base = full(self.builder, base, box_shape(box))
        points = self.demand.points
        if points.is_whole(eqn, box):
            rest = zip(eqn.inputs[1:], points.scatter_reads(eqn, box)[1:], strict=True)
            operands = [self.get(a, r or ()) for a, r in rest]
            return self.builder(eqn.primitive, base, *operands, **eqn.params)
        return self._patched(eqn, box, base, box)

    def _patch_in_room(self, eqn: Equation) -> None:
        """A patched value with room around it: patched where it lies, it need not be copied."""
        (out,) = eqn.outputs
        box, room = self.rooms[out]
        below = eqn.inputs[0]
        if isinstance(below, Var) and below in self.rooms:
            base = self.get(below, room)
        else:
            base = self.placed(self.get(below, box), box, room)
        if isinstance(base, Literal):
            base = full(self.builder, base, box_shape(room))
        atom = self._patched(eqn, box, base, room)
        self.has(out, room, atom)

    def _patched(self, eqn: Equation, box: Box, base: Atom, room: Box) -> Atom:
        """The points that lie in a box, in a base that lies in a room around it."""
        points = self.demand.points
        part, hits = points.scatter_reads(eqn, box)[1], points.hits(eqn, box)
        if part is None:
            return base
        indices = [
            (i.ravel()[hits] - lo) for i, (lo, _) in zip(points.indices(eqn), room, strict=False)
        ]
        value = self._picked(self.get(eqn.inputs[1], part), eqn, hits, part)
        found = [self.extra(i) for i in indices]
        return self.builder(eqn.primitive, base, value, *found, **eqn.params)

    _scatter = _scatter_add

    def _picked(self, value: Atom, eqn: Equation, hits: np.ndarray, part: Box) -> Atom:
        """Rows of the values of a scatter, points made flat: those inside."""
        n_points = eqn.inputs[2].type.ndim  # type: ignore[union-attr]
        rest = box_shape(part)[n_points:]
        if isinstance(value, Literal):
            return full(self.builder, value, (int(hits.sum()), *rest))
        flat = self.builder(reshape, value, shape=(hits.size, *rest))
        if hits.all():
            return flat
        return self.builder(g.gather, flat, self.extra(np.flatnonzero(hits)), unique=True)


def same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
