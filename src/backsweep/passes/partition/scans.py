"""A scan cut into blocks: local steps, the layout of what they carry, and its halos.

The step is partitioned twice, forward and in its adjoint: both are programs on global arrays, and
every value of theirs is computed by the same expression on any number of ranks. What is carried has
one layout in both: the rank's own block and, around it, as much as the steps read; that much is
fetched from its owners after each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backsweep.comm.boxes import Box
from backsweep.errors import DecompositionError
from backsweep.ir import Equation, Var
from backsweep.passes.linearize import vjp_program
from backsweep.passes.partition.cut import MAX_HALO, AbstractScanCut, StepCut, stacked, walk
from backsweep.passes.partition.demand import Demand, Owner, Points, unwrapped
from backsweep.passes.partition.placement import Placement, located
from backsweep.passes.partition.placing import known_value
from backsweep.passes.partition.steps import bars_of_inputs, place_adjoint, place_scan
from backsweep.primitives.control import scan_shape


@dataclass
class ScanCut(AbstractScanCut):
    """A scan of the whole program: ghosts of what it carries are fetched after each step."""

    known: dict[Var, np.ndarray] = field(kw_only=True)
    """Integer constants of the step whose values are given."""

    # ------------------------------------------------------------------ placements

    @staticmethod
    def place(
        eqn: Equation, operands: Sequence[Placement], known: Mapping[int, np.ndarray]
    ) -> ScanCut:
        """Find where what a scan carries belongs.

        `known` has the values of index arrays among its constants, by their number.
        """
        given, shape = eqn.params["step"], scan_shape(eqn.params)
        carry, cut = place_scan(given, shape, operands)
        step = cut.program
        values = {step.inputs[k]: value for k, value in known.items()}
        return ScanCut(given, step, shape, carry, cut, known=values)

    def outputs(self) -> list[Placement]:
        """Of a scan: carries, records, trajectory."""
        n = self.shape.n_carry
        ys = [stacked(self.forward.output(k)) for k in range(n, len(self.step.outputs))]
        return [*self.carry, *ys, Placement(())]

    def place_reverse(self, eqn: Equation) -> list[Placement]:
        """Of a reverse sweep: cotangents of consts, carries, xs."""
        p, shape = eqn.params, self.shape
        active_in, active_out = tuple(p["active_in"]), tuple(p["active_out"])
        carry_bars = [c for c, a in zip(self.carry, active_out, strict=False) if a]
        ys = [self.forward.output(k) for k in range(shape.n_carry, len(self.step.outputs))]
        y_bars = [
            Placement((None,) * len(y.anchors) if y.is_partial else y.anchors)
            for y, a in zip(ys, active_out[shape.n_carry :], strict=True)
            if a
        ]
        program = vjp_program(self.given, active_in, active_out, "reverse")
        cut = place_adjoint(self, program, active_in, [*carry_bars, *y_bars])
        self.reverses[id(eqn)], self.flags[id(eqn)] = cut, (active_in, active_out)
        return bars_of_inputs(self, active_in, [cut.output(k) for k in range(sum(active_in))])

    # ------------------------------------------------------------------ demands

    def settle(self, owner: Owner) -> None:
        """Find what the rank needs of every value, and the layouts that follow."""
        self.owner = owner
        step = self.step
        demand = self._demand(self.forward, self.known)
        for k, atom in enumerate(step.outputs):
            demand.need(atom, self.kept(self.forward, k))
        walk(self.forward)
        for key, cut in self.reverses.items():
            known = dict(zip(cut.program.inputs, step.inputs, strict=False))
            values = {v: self.known[s] for v, s in known.items() if s in self.known}
            demand = self._demand(cut, values)
            for k, atom in enumerate(cut.program.outputs):
                demand.need(atom, self.kept_bar(key, k))
            walk(cut)
        self._find_layouts()
        for k in range(self.shape.n_carry):
            self._check(self.shape.n_consts + k)
        common = self.shared([self.layouts[v] for v in self._carries()])
        self.layouts.update(zip(self._carries(), common, strict=True))
        self._find_y_layouts()

    def _demand(self, cut: StepCut, known: dict[Var, np.ndarray]) -> Demand:
        makers = {v: e for e in cut.program.equations for v in e.outputs}
        values = dict(known)
        points = Points(cut.placed, self.owner, lambda a: known_value(a, makers, values))
        cut.demand = Demand(cut.program, cut.placed, self.owner, points)
        return cut.demand

    def kept(self, cut: StepCut, k: int) -> Box | None:
        if k < self.shape.n_carry:
            return self.owned(k)
        return self.owner.owned(cut.output(k), cut.program.outputs[k].type.shape)

    def owned(self, k: int) -> Box | None:
        """The part of a carry that belongs to the rank."""
        return self.owner.owned(self.carry[k], self.step.outputs[k].type.shape)

    def kept_bar(self, key: int, k: int) -> Box | None:
        cut, j = self.reverses[key], self.bar_of(key)[k]
        shape = cut.program.outputs[k].type.shape
        if self.is_carry(j):
            return self.owned(j - self.shape.n_consts)
        return self.owner.owned(cut.output(k), shape)

    def right(self, key: int | None, number: int) -> Box | None:
        return self.layout_of_input(key, number)

    def _own(self, number: int) -> list[Box]:
        if self.is_carry(number):
            box = self.owned(number - self.shape.n_consts)
            return [] if box is None else [box]
        found = []
        for key in self.reverses:
            outputs = self.bar_of(key)
            if number in outputs:
                box = self.kept_bar(key, outputs.index(number))
                found += [] if box is None else [box]
        return found

    def _check(self, number: int) -> None:
        var = self.step.inputs[number]
        own, layout = self.owned(number - self.shape.n_consts), self.layouts[var]
        if own is None or layout is None:
            return
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
                if var not in eqn.inputs or eqn.source is None or id(eqn) in cut.loops:
                    continue
                for box in demand.made(eqn.outputs[0]):
                    part = demand.reads(eqn, box)[eqn.inputs.index(var)]
                    reach = 0 if part is None else _reach(own, unwrapped(part, own, var.type.shape))
                    if reach > best:
                        best, found = reach, f" ({eqn.primitive.name}, {located(eqn)})"
        return found


def _reach(own: Box, part: Box) -> int:
    """How far from a block is read."""
    return max(max(a - lo, hi - b) for (a, b), (lo, hi) in zip(own, part, strict=True))
