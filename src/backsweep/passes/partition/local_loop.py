"""What a rank runs of a loop inside a step: its arguments, with their room, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backsweep.comm.boxes import Box, box_shape
from backsweep.ir import ArrayType, Atom, Equation, Var
from backsweep.passes.partition.localise import Localiser
from backsweep.passes.partition.loops import LoopCut
from backsweep.primitives import control as c
from backsweep.primitives.shape import zeros

if TYPE_CHECKING:
    from backsweep.passes.partition.local_scan import LocalScan


def add_loop(local: Localiser, eqn: Equation, scan: LocalScan[LoopCut]) -> None:
    """Append a scan of a step to a rank's program, or its reverse sweep."""
    local.builder.source = eqn.source
    if eqn.primitive is c.scan_reverse:
        _Writer(local, eqn, scan).reverse()
    else:
        _Writer(local, eqn, scan).forward()


class _Writer:
    def __init__(self, local: Localiser, eqn: Equation, scan: LocalScan[LoopCut]) -> None:
        self.local, self.eqn, self.scan, self.cut = local, eqn, scan, scan.cut
        self.steps = ((0, scan.cut.shape.length),)

    def forward(self) -> None:
        cut, scan, eqn, n = self.cut, self.scan, self.eqn, self.cut.shape.n_carry
        results: list[Atom] = []
        if scan.programs[None].outputs or any(p.outputs for p in scan.programs.values()):
            given, init, rows = cut.shape.split_inputs(eqn.inputs)
            consts, xs = self._given(given, rows)
            carry = [
                self._in_layout(init[k], cut.held(k), cut.layout_of_output(k))
                for k in scan.groups()[1]
            ]
            shape, program = scan.shape(), scan.programs[None]
            params = {"n_consts": shape.n_consts, "n_carry": shape.n_carry, "step": program}
            params = dict(eqn.params) | params
            params = {k: v for k, v in params.items() if not k.startswith("active")}
            results += self.local.builder(eqn.primitive, *consts, *carry, *xs, **params)
        for k, var in enumerate(eqn.outputs[: len(cut.step.outputs)]):
            layout = cut.layout_of_output(k)
            result = results.pop(0) if layout is not None else None
            self._take(var, result, layout, cut.kept(cut.forward, k), is_stacked=k >= n)
        if results:  # the trajectory
            self.local.has(eqn.outputs[-1], (), results[0])

    def reverse(self) -> None:
        cut, scan, eqn, key = self.cut, self.scan, self.eqn, id(self.eqn)
        program, results = scan.programs[key], []
        if program.outputs:
            n_xs = len(cut.step.inputs) - cut.shape.n_consts - cut.shape.n_carry
            first = 1 + cut.shape.n_consts
            consts, xs = self._given(eqn.inputs[1:first], eqn.inputs[first : first + n_xs])
            active_in, active_out = scan.active(key)
            shape = scan.shape()
            params = dict(eqn.params) | {
                "step": scan.programs[None],
                "adjoint": program,
                "n_consts": shape.n_consts,
                "n_carry": shape.n_carry,
                "active_in": active_in,
                "active_out": active_out,
            }
            ((_, track),) = self.local.local[eqn.inputs[0]]  # type: ignore[index]
            bars = self._bars(list(eqn.inputs[first + n_xs :]))
            builder = self.local.builder
            results += builder(eqn.primitive, track, *consts, *xs, *bars, **params)
        for k, (var, j) in enumerate(zip(eqn.outputs, cut.bar_of(key), strict=True)):
            layout = cut.layouts[cut.step.inputs[j]]
            box, is_carry = cut.kept_bar(key, k), cut.is_carry(j)
            is_there = layout is not None and (box is not None or is_carry)
            result = results.pop(0) if is_there else None
            self._take(
                var, result, layout, box, is_stacked=j >= cut.shape.n_consts and not is_carry
            )

    def _given(self, given: Sequence[Atom], rows: Sequence[Atom]) -> tuple[list[Atom], list[Atom]]:
        """Local constants and xs."""
        cut, scan, local = self.cut, self.scan, self.local
        variables = cut.shape.split_inputs(cut.step.inputs)
        numbers = scan.groups()
        consts = [local.get_unwrapped(given[k], self._layout(variables[0][k])) for k in numbers[0]]
        consts += [local.extra(value) for value in scan.extras]
        xs = [
            local.get_unwrapped(rows[k], (*self.steps, *self._layout(variables[2][k])))
            for k in numbers[2]
        ]
        return consts, xs

    def _bars(self, atoms: list[Atom]) -> list[Atom]:
        """Cotangents of the results, in the layouts of these."""
        cut, key, found = self.cut, id(self.eqn), []
        for k, is_active in enumerate(cut.flags[key][1]):
            if not is_active:
                continue
            atom, layout = atoms.pop(0), cut.layout_of_output(k)
            if layout is None:
                continue
            if k < cut.shape.n_carry:
                found.append(self._in_layout(atom, cut.held_bar(key, k), layout))
                continue
            box = cut.read_bar(key, k)
            box = None if box is None else (*self.steps, *box)
            found.append(self._in_layout(atom, box, (*self.steps, *layout)))
        return found

    def _layout(self, var: Var) -> Box:
        layout = self.cut.layouts[var]
        assert layout is not None, var.name
        return layout

    def _in_layout(self, atom: Atom, box: Box | None, layout: Box | None) -> Atom:
        """What is right of a value, with zeros around it."""
        assert layout is not None and isinstance(atom.type, ArrayType)
        if box is None:
            return zeros(self.local.builder, ArrayType(box_shape(layout), atom.type.dtype))
        return self.local.placed(self.local.get_unwrapped(atom, box), box, layout)

    def _take(
        self,
        var: Var,
        result: Atom | None,
        layout: Box | None,
        box: Box | None,
        *,
        is_stacked: bool,
    ) -> None:
        """Note what is asked for of a result, of which a box in its layout is right.

        It is added up over ranks where it must be.
        """
        local = self.local
        made = local.demand.made(var)
        parts: list[tuple[Box, Atom]] = []
        if result is not None and layout is not None and box is not None:
            if is_stacked:
                layout, box = (*self.steps, *layout), (*self.steps, *box)
            if var not in local.demand.placed.parts:
                local.has_unwrapped(var, layout, result, made, box)
                return
            parts = [(own, local.cut(result, layout, own)) for own in made]
        if var in local.demand.placed.parts:
            local.has(var, *local.summed_up(var, parts))
