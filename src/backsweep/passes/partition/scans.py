"""A scan cut into blocks: local steps, the layout of what they carry, and its halos.

The step is partitioned twice, forward and in its adjoint: both are programs on global arrays, and
every value of theirs is computed by the same expression on any number of ranks. What is carried has
one layout in both: the rank's own block and, around it, as much as the steps read; that much is
fetched from its owners after each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.comm.boxes import Box, hull
from backsweep.errors import DecompositionError
from backsweep.ir import Equation, Program, Var
from backsweep.passes.linearize import vjp_program
from backsweep.passes.partition.demand import Demand, Owner, Points, unwrapped
from backsweep.passes.partition.placement import Anchor, Placed, Placement, located
from backsweep.passes.partition.placing import known_value, place_program, written_out
from backsweep.primitives.control import ScanShape, scan_shape

MAX_HALO = 64
"""Cells around its block that a rank may hold where the block itself is narrower."""


@dataclass
class StepCut:
    """One program of a step and where its values belong."""

    program: Program
    placed: Placed
    demand: Demand | None = None

    def output(self, k: int) -> Placement:
        """Of an output; what belongs to one place of the grid is a partial value."""
        found = self.placed.of(self.program.outputs[k])
        if found.fixed and not found.is_partial:
            return Placement(found.anchors, found.fixed, True)
        return found


@dataclass
class ScanCut:
    """A scan and the reverse sweeps over its trajectory."""

    given: Program
    step: Program
    """What is given, with all that it calls in it."""
    shape: ScanShape
    known: dict[Var, np.ndarray]
    """Integer constants of the step whose values are given."""
    carry: list[Placement]
    forward: StepCut
    reverses: dict[int, StepCut] = field(default_factory=dict)
    flags: dict[int, tuple[tuple[bool, ...], tuple[bool, ...]]] = field(default_factory=dict)
    layouts: dict[Var, Box | None] = field(default_factory=dict)
    """Of the inputs of the step."""
    y_layouts: list[Box | None] = field(default_factory=list)

    # ------------------------------------------------------------------ placements

    @staticmethod
    def place(
        eqn: Equation, operands: Sequence[Placement], known: Mapping[int, np.ndarray]
    ) -> ScanCut:
        """Find where what a scan carries belongs: a fixpoint over its step.

        `known` has the values of index arrays among its constants, by their number.
        """
        given, shape = eqn.params["step"], scan_shape(eqn.params)
        step = written_out(given)
        values = {step.inputs[k]: value for k, value in known.items()}
        consts, carry, xs = shape.split_inputs(list(operands))
        xs = [Placement(x.anchors[1:], x.fixed) for x in xs]
        while True:
            whole = [True] * shape.n_carry + [False] * (len(step.outputs) - shape.n_carry)
            placed = place_program(step, [*consts, *carry, *xs], whole)
            made = [placed.of(a) for a in step.outputs[: shape.n_carry]]
            merged = [_merged(a, b) for a, b in zip(carry, made, strict=True)]
            if merged == carry:
                return ScanCut(given, step, shape, values, carry, StepCut(step, placed))
            carry = merged

    def outputs(self) -> list[Placement]:
        """Of a scan: carries, records, trajectory."""
        n = self.shape.n_carry
        ys = [stacked(self.forward.output(k)) for k in range(n, len(self.step.outputs))]
        return [*self.carry, *ys, Placement(())]

    def place_reverse(self, eqn: Equation) -> list[Placement]:
        """Of a reverse sweep: cotangents of consts, carries, xs."""
        p, shape = eqn.params, self.shape
        active_in, active_out = tuple(p["active_in"]), tuple(p["active_out"])
        program = written_out(vjp_program(self.given, active_in, active_out, "reverse"))
        seen = self.forward.placed.seen
        inputs = [seen[v] for v in self.step.inputs]
        carry_bars = [c for c, a in zip(self.carry, active_out, strict=False) if a]
        ys = [self.forward.output(k) for k in range(shape.n_carry, len(self.step.outputs))]
        y_bars = [
            Placement((None,) * len(y.anchors) if y.is_partial else y.anchors)
            for y, a in zip(ys, active_out[shape.n_carry :], strict=True)
            if a
        ]
        consts, carry, xs = shape.split_inputs(active_in)
        whole = [False] * sum(consts) + [True] * sum(carry) + [False] * sum(xs)
        placed = place_program(program, [*inputs, *carry_bars, *y_bars], whole)
        cut = StepCut(program, placed)
        self.reverses[id(eqn)], self.flags[id(eqn)] = cut, (active_in, active_out)
        found = [cut.output(k) for k in range(len(program.outputs))]
        a, c = sum(consts), sum(consts) + sum(carry)
        own = [q for q, flag in zip(self.carry, carry, strict=True) if flag]
        return [*found[:a], *own, *(stacked(x) for x in found[c:])]

    # ------------------------------------------------------------------ demands

    def settle(self, owner: Owner) -> None:
        """Find what the rank needs of every value, and the layouts that follow."""
        self.owner = owner
        shape, step = self.shape, self.step
        demand = self._demand(self.forward, self.known)
        for k, atom in enumerate(step.outputs):
            demand.need(atom, self.kept(self.forward, k))
        _walk(demand)
        for key, cut in self.reverses.items():
            known = dict(zip(cut.program.inputs, step.inputs, strict=False))
            values = {v: self.known[s] for v, s in known.items() if s in self.known}
            demand = self._demand(cut, values)
            for k, atom in enumerate(cut.program.outputs):
                demand.need(atom, self.kept_bar(key, k))
            _walk(demand)
        for number, var in enumerate(step.inputs):
            self.layouts[var] = self._layout(number, var)
        self._share_layouts()
        self.y_layouts = [self._y_layout(k) for k in range(shape.n_carry, len(step.outputs))]

    def _demand(self, cut: StepCut, known: dict[Var, np.ndarray]) -> Demand:
        makers = {v: e for e in cut.program.equations for v in e.outputs}
        values = dict(known)
        points = Points(cut.placed, self.owner, lambda a: known_value(a, makers, values))
        cut.demand = Demand(cut.program, cut.placed, self.owner, points)
        return cut.demand

    def kept(self, cut: StepCut, k: int) -> Box | None:
        """The part of an output of the step that the rank keeps."""
        if k < self.shape.n_carry:
            return self.owned(k)
        return self.owner.owned(cut.output(k), cut.program.outputs[k].type.shape)

    def owned(self, k: int) -> Box | None:
        """The part of a carry that belongs to the rank."""
        return self.owner.owned(self.carry[k], self.step.outputs[k].type.shape)

    def kept_bar(self, key: int, k: int) -> Box | None:
        """The part of an output of the adjoint step that the rank keeps."""
        cut, j = self.reverses[key], self.bar_of(key)[k]
        shape = cut.program.outputs[k].type.shape
        if self.is_carry(j):
            return self.owned(j - self.shape.n_consts)
        return self.owner.owned(cut.output(k), shape)

    def is_carry(self, j: int) -> bool:
        """Whether an input of the step is a carry."""
        return 0 <= j - self.shape.n_consts < self.shape.n_carry

    def bar_of(self, key: int) -> list[int]:
        """Inputs of the step that have a cotangent, in the order of the outputs."""
        return [j for j, is_active in enumerate(self.flags[key][0]) if is_active]

    def pieces(self, number: int) -> list[Box]:
        """What is read of an input of the step, in any of its programs."""
        assert self.forward.demand is not None
        found = list(self.forward.demand.pieces.get(self.step.inputs[number], ()))
        carry = number - self.shape.n_consts
        for key, cut in self.reverses.items():
            assert cut.demand is not None
            found += cut.demand.pieces.get(cut.program.inputs[number], ())
            active_out = self.flags[key][1]
            if 0 <= carry < self.shape.n_carry and active_out[carry]:
                bar = cut.program.inputs[len(self.step.inputs) + sum(active_out[:carry])]
                found += cut.demand.pieces.get(bar, ())
        return found

    def _layout(self, number: int, var: Var) -> Box | None:
        own: list[Box] = []
        is_carry = self.is_carry(number)
        if is_carry:
            own = [b for b in (self.owned(number - self.shape.n_consts),) if b is not None]
        for key in self.reverses:
            outputs = self.bar_of(key)
            if number in outputs and not is_carry:
                box = self.kept_bar(key, outputs.index(number))
                own += [] if box is None else [box]
        layout = enclosing(own, self.pieces(number), var.type.shape)
        if is_carry and own and layout is not None:
            self._check(number, own[0], layout)
        return layout

    def _check(self, number: int, own: Box, layout: Box) -> None:
        var = self.step.inputs[number]
        for axis, ((lo, hi), (first, last)) in enumerate(zip(own, layout, strict=True)):
            width = max(lo - first, last - hi)
            if width > max(hi - lo, MAX_HALO):
                where = self._farthest(number, own)
                raise DecompositionError(
                    f"a step reads {var.name or 'a carry'} up to {width} cells beyond the "
                    f"{hi - lo} of a rank's block along its axis {axis}{where}: cut the grid along "
                    "another axis, or into fewer blocks"
                )

    def _farthest(self, number: int, own: Box) -> str:
        """The line that reads an input of the step farthest from a rank's block."""
        best, found = 0, ""
        for cut in (self.forward, *self.reverses.values()):
            demand, var = cut.demand, cut.program.inputs[number]
            assert demand is not None
            for eqn in cut.program.equations:
                if var not in eqn.inputs or eqn.source is None:
                    continue
                for box in demand.made(eqn.outputs[0]):
                    part = demand.reads(eqn, box)[eqn.inputs.index(var)]
                    reach = 0 if part is None else _reach(own, unwrapped(part, own, var.type.shape))
                    if reach > best:
                        best, found = reach, f" ({eqn.primitive.name}, {located(eqn)})"
        return found

    def _share_layouts(self) -> None:
        """Carries of one kind have one layout: they may be handed on."""
        n, variables = self.shape.n_consts, self.step.inputs
        groups: dict[Any, list[Var]] = {}
        for k, placement in enumerate(self.carry):
            var = variables[n + k]
            groups.setdefault((var.type.shape, placement), []).append(var)
        for members in groups.values():
            boxes = [b for v in members if (b := self.layouts[v]) is not None]
            if boxes:
                common = boxes[0]
                for box in boxes[1:]:
                    common = hull(common, box)
                for var in members:
                    self.layouts[var] = common

    def _y_layout(self, k: int) -> Box | None:
        own = [b for b in (self.kept(self.forward, k),) if b is not None]
        read: list[Box] = []
        for key, cut in self.reverses.items():
            active_out = self.flags[key][1]
            if active_out[k]:
                assert cut.demand is not None
                bar = cut.program.inputs[len(self.step.inputs) + sum(active_out[:k])]
                read += cut.demand.pieces.get(bar, ())
        return enclosing(own, read, self.step.outputs[k].type.shape)

    def layout_of_output(self, k: int) -> Box | None:
        n = self.shape.n_carry
        if k < n:
            return self.layouts[self.step.inputs[self.shape.n_consts + k]]
        return self.y_layouts[k - n]


def stacked(placement: Placement) -> Placement:
    """Of the values of all steps."""
    return Placement((None, *placement.anchors), placement.fixed, placement.is_partial)


def _merged(given: Placement, made: Placement) -> Placement:
    """Of a carry: where it came from decides, then where the step puts it."""
    anchors: list[Anchor | None] = list(given.anchors)
    taken = {a.axis for a in anchors if a is not None}
    for k, a in enumerate(made.anchors):
        if anchors[k] is None and a is not None and a.axis not in taken:
            anchors[k] = a
    return Placement(tuple(anchors), given.fixed)


def enclosing(own: Sequence[Box], read: Sequence[Box], shape: Sequence[int]) -> Box | None:
    """One box around what a rank owns and reads, over the ends of periodic axes if need be."""
    boxes = [*own, *sorted(read)]
    if not boxes:
        return None
    found = boxes[0]
    for box in boxes[1:]:
        found = hull(found, unwrapped(box, found, shape))
    return found


def _reach(own: Box, part: Box) -> int:
    """How far from a block is read."""
    return max(max(a - lo, hi - b) for (a, b), (lo, hi) in zip(own, part, strict=True))


def _walk(demand: Demand) -> None:
    for eqn in reversed(demand.program.equations):
        demand.walk(eqn)
