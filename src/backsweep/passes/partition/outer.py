"""The program around the scans, cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from backsweep.comm import Decomposition, agreement
from backsweep.comm.boxes import Box, box_shape, hull, is_empty
from backsweep.ir import ArrayType, Atom, Equation, Program, Var
from backsweep.passes.inline import inline_calls
from backsweep.passes.partition.beyond import Beyond
from backsweep.passes.partition.demand import Demand, Owner, Points
from backsweep.passes.partition.fields import check_grid, field_placement
from backsweep.passes.partition.local_scan import LocalScan, write_scan
from backsweep.passes.partition.localise import Localiser
from backsweep.passes.partition.placement import (
    NeedsSum,
    Placed,
    Placement,
    refused,
)
from backsweep.passes.partition.placing import known_value, place_program
from backsweep.passes.partition.scans import ScanCut
from backsweep.passes.simplify import simplify
from backsweep.primitives.shape import zeros


@dataclass(frozen=True)
class Local:
    """What one rank runs of a program.

    Attributes
    ----------
    program : Program
        Inputs: parts of those of the global program, then `extras`.
    boxes : tuple of Box or None
        The part of each input of the global program that it reads; None where it reads nothing.
    extras : list of ndarray
    outputs : tuple of Box or None
        The part of each output that it returns; None where every rank returns the whole of it.
    """

    program: Program
    boxes: tuple[Box | None, ...]
    extras: list[np.ndarray]
    outputs: tuple[Box | None, ...]


def partition(
    program: Program, decomposition: Decomposition, known: dict[Var, np.ndarray], rank: int
) -> Local:
    """The part of a program on global arrays that a rank computes. Every rank must call.

    Parameters
    ----------
    program : Program
        On global shapes.
    decomposition : Decomposition
    known : dict
        Values of integer inputs: indices of sources and receivers.
    rank : int

    Raises
    ------
    DecompositionError
        On one rank, if the program reads too far along an axis that is cut, naming the line, or
        has no array of the grid's shape.
    Agreed
        On every rank, for the same reasons on any of them.
    """
    comm = decomposition.comm
    with agreement(comm):
        cut = _Cut.of(program, decomposition, known, rank)
        cut.settle()
    cut.beyond = Beyond(cut.demand, cut.results_of_scans(), comm)
    with agreement(comm):
        return cut.build()


@dataclass
class _Cut:
    program: Program
    owner: Owner
    known: dict[Var, np.ndarray]
    scans: dict[int, ScanCut] = field(default_factory=dict)
    """By the id of the equation that makes the trajectory, or of the plain scan."""
    of_trajectory: dict[Var, ScanCut] = field(default_factory=dict)
    built: dict[int, LocalScan[ScanCut]] = field(default_factory=dict)
    placed: Placed = field(init=False)
    demand: Demand = field(init=False)
    beyond: Beyond = field(init=False)

    def __post_init__(self) -> None:
        self.makers = {v: e for e in self.program.equations for v in e.outputs}
        self.values = dict(self.known)

    @staticmethod
    def of(
        program: Program, decomposition: Decomposition, known: dict[Var, np.ndarray], rank: int
    ) -> _Cut:
        """Where its values belong."""
        check_grid(program, decomposition)
        flat = inline_calls(program)
        pairs = zip(flat.inputs, program.inputs, strict=True)
        cut = _Cut(flat, Owner(decomposition, rank), {v: known[w] for v, w in pairs if w in known})
        inputs = [field_placement(v.type, decomposition) for v in program.inputs]
        whole = [True] * len(program.outputs)
        cut.placed = place_program(flat, inputs, whole, cut._place_scan)
        return cut

    def settle(self) -> None:
        """Find what the rank needs of every value."""
        points = Points(self.placed, self.owner, self.value_of)
        self.demand = Demand(self.program, self.placed, self.owner, points)
        for cut in self.scans.values():
            cut.settle(self.owner)
        self.kept = [self._kept(a) for a in self.program.outputs]
        for atom, box in zip(self.program.outputs, self.kept, strict=True):
            self.demand.need(atom, box)
        for eqn in reversed(self.program.equations):
            if eqn.primitive.kind == "control":
                self._need_of_scan(eqn)
            else:
                self.demand.walk(eqn)

    def results_of_scans(self) -> list[Var]:
        scans = (e for e in self.program.equations if e.primitive.kind == "control")
        return [v for e in scans for v in e.outputs if isinstance(v.type, ArrayType)]

    def value_of(self, atom: Atom) -> np.ndarray | None:
        return known_value(atom, self.makers, self.values)

    def _kept(self, atom: Atom) -> Box:
        """Of an output: the rank's block, or all of what is no field of the grid."""
        grid, shape = field_placement(atom.type, self.owner.decomposition), atom.type.shape
        return tuple(self.owner.along(a, n) for a, n in zip(grid.anchors, shape, strict=True))

    # ------------------------------------------------------------------ placements

    def _place_scan(self, eqn: Equation, placed: Placed) -> list[Placement]:
        for atom in eqn.inputs:
            if isinstance(atom, Var) and placed.of(atom).is_partial:
                raise NeedsSum(atom)
        name = eqn.primitive.name
        operands = [placed.of(a) for a in eqn.inputs]
        if name in ("scan", "scan_forward"):
            consts = eqn.inputs[: eqn.params["n_consts"]]
            known = {k: v for k, a in enumerate(consts) if (v := self._index(a)) is not None}
            cut = self.scans[id(eqn)] = ScanCut.place(eqn, operands, known)
            if name == "scan":
                return cut.outputs()[:-1]
            self.of_trajectory[eqn.outputs[-1]] = cut
            return cut.outputs()
        if name == "scan_reverse":
            assert isinstance(eqn.inputs[0], Var)
            return self.of_trajectory[eqn.inputs[0]].place_reverse(eqn)
        raise refused(eqn, "is not cut yet", "run it on one rank, or use scan")

    def _index(self, atom: Atom) -> np.ndarray | None:
        """The value of what may be an index array, where it is known."""
        is_index = isinstance(atom.type, ArrayType) and atom.type.dtype.kind in "iu"
        return self.value_of(atom) if is_index else None

    # ------------------------------------------------------------------ demands

    def _need_of_scan(self, eqn: Equation) -> None:
        if eqn.primitive.name == "scan_reverse":
            self._need_of_reverse(eqn)
            return
        cut = self.scans[id(eqn)]
        a, b = cut.shape.n_consts, cut.shape.n_consts + cut.shape.n_carry
        for k, (atom, var) in enumerate(zip(eqn.inputs, cut.step.inputs, strict=True)):
            if a <= k < b:
                self.demand.need(atom, cut.owned(k - a))
            else:
                self._need_layout(atom, cut.layouts[var], is_stacked=k >= b)

    def _need_layout(self, atom: Atom, layout: Box | None, *, is_stacked: bool) -> None:
        if layout is not None:
            box = ((0, atom.type.shape[0]), *layout) if is_stacked else layout
            self.demand.need_unwrapped(atom, box)

    def _need_of_reverse(self, eqn: Equation) -> None:
        cut = self.of_trajectory[eqn.inputs[0]]  # type: ignore[index]
        shape = cut.shape
        # consts and xs are those of the forward scan, whose layouts hold for both.
        consts, _, xs = shape.split_inputs(cut.step.inputs)
        given = [*consts, *xs]
        atoms = eqn.inputs[1:]
        for k, var in enumerate(given):
            self._need_layout(atoms[k], cut.layouts[var], is_stacked=k >= shape.n_consts)
        bars = list(atoms[len(given) :])
        for k, is_active in enumerate(cut.flags[id(eqn)][1]):
            if not is_active:
                continue
            bar = bars.pop(0)
            if k < shape.n_carry:
                self.demand.need(bar, cut.owned(k))
            else:
                layout = cut.y_layouts[k - shape.n_carry]
                self._need_layout(bar, layout, is_stacked=True)

    # ------------------------------------------------------------------ the local program

    def build(self) -> Local:
        """The rank's program."""
        local = self.local = Localiser(self.demand)
        inputs: list[Var] = []
        boxes: list[Box | None] = []
        for var in self.program.inputs:
            pieces = self.demand.pieces.get(var, [])
            if not pieces:
                boxes.append(None)
                continue
            box = reduce(hull, pieces)
            own = Var(var.type.with_shape(box_shape(box)), var.name)  # type: ignore[union-attr]
            inputs.append(own)
            boxes.append(box)
            local.has(var, box, own)
        for eqn in self.program.equations:
            if eqn.primitive.kind == "control":
                self._add_scan(eqn)
            else:
                local.add(eqn)
        outputs: list[Atom] = []
        parts: list[Box | None] = []
        for atom, part in zip(self.program.outputs, self.kept, strict=True):
            is_field = field_placement(atom.type, self.owner.decomposition).is_cut
            parts.append(part if is_field else None)
            outputs.append(self._output(atom, part))
        variables = (*inputs, *(v for v, _ in local.extras))
        program = Program(variables, tuple(local.builder.equations), tuple(outputs), "local")
        return Local(
            simplify(program),
            tuple(boxes),
            [value for _, value in local.extras],
            tuple(parts),
        )

    def _output(self, atom: Atom, box: Box) -> Atom:
        if is_empty(box) and isinstance(atom.type, ArrayType):
            return zeros(self.local.builder, ArrayType(box_shape(box), atom.type.dtype))
        return self.local.get(atom, box)

    def _add_scan(self, eqn: Equation) -> None:
        if eqn.primitive.name == "scan_reverse":
            self._add_reverse(eqn)
            return
        cut = self.scans[id(eqn)]
        scan = self.built[id(eqn)] = write_scan(cut)
        consts, carry, xs = self._arguments(scan, cut.shape.split_inputs(list(eqn.inputs)))
        shape = scan.shape()
        params = dict(eqn.params) | {
            "step": scan.programs[None],
            "n_consts": shape.n_consts,
            "n_carry": shape.n_carry,
            "halo": scan.halo(None),
        }
        if "active_in" in params:
            del params["active_in"]
            if len(cut.reverses) == 1:
                (key,) = cut.reverses
                params["active_in"], params["active_out"] = scan.active(key)
                params["adjoint"] = scan.programs[key]
        self.local.builder.source = eqn.source
        results = self.local.builder(eqn.primitive, *consts, *carry, *xs, **params)
        results = results if isinstance(results, tuple) else (results,)
        self._take_outputs(eqn, scan, list(results))

    def _arguments(
        self, scan: LocalScan[ScanCut], groups: Any
    ) -> tuple[list[Atom], list[Atom], list[Atom]]:
        """Local constants, first carry and xs of a scan."""
        cut, local = scan.cut, self.local
        variables = cut.shape.split_inputs(cut.step.inputs)
        numbers = scan.groups()
        consts = [
            local.get_unwrapped(groups[0][k], self._layout(cut, variables[0][k]))
            for k in numbers[0]
        ]
        consts += [local.extra(value) for value in scan.extras]
        carry = []
        if groups[1]:
            carry = [
                self._in_layout(groups[1][k], cut.owned(k), self._layout(cut, variables[1][k]))
                for k in numbers[1]
            ]
        n = ((0, cut.shape.length),)
        xs = [
            local.get_unwrapped(groups[2][k], (*n, *self._layout(cut, variables[2][k])))
            for k in numbers[2]
        ]
        return consts, carry, xs

    @staticmethod
    def _layout(cut: ScanCut, var: Var) -> Box:
        layout = cut.layouts[var]
        assert layout is not None, var.name
        return layout

    def _in_layout(self, atom: Atom, box: Box | None, layout: Box) -> Atom:
        """What belongs to the rank, in a layout with room for the ghosts."""
        if box is None:
            type = ArrayType(box_shape(layout), atom.type.dtype)  # type: ignore[union-attr]
            return zeros(self.local.builder, type)
        return self.local.placed(self.local.get(atom, box), box, layout)

    def _take_outputs(self, eqn: Equation, scan: LocalScan[ScanCut], results: list[Atom]) -> None:
        cut, n = scan.cut, scan.cut.shape.n_carry
        steps = ((0, cut.shape.length),)
        for k, var in enumerate(eqn.outputs[: len(cut.step.outputs)]):
            layout, box = cut.layout_of_output(k), cut.kept(cut.forward, k)
            result = results.pop(0) if layout is not None else None
            if k >= n:
                layout = None if layout is None else (*steps, *layout)
                box = None if box is None else (*steps, *box)
            self._take(var, result, layout, box)
        if results:  # the trajectory
            self.local.has(eqn.outputs[-1], (), results[0])

    def _take(self, var: Var, result: Atom | None, layout: Box | None, box: Box | None) -> None:
        """Note what the rank has of an output of a scan, added up over ranks where it must be."""
        parts: list[tuple[Box, Atom]] = []
        if result is not None and layout is not None and box is not None:
            parts = [(box, self.local.cut(result, layout, box))]
        if var in self.placed.parts:
            parts = [self.local.summed_up(var, parts)]
        if var in self.beyond.read:
            self.beyond.fetch(self.local, var, parts[0][1] if parts else None)
            return
        for own, atom in parts:
            self.local.has(var, own, atom)

    def _add_reverse(self, eqn: Equation) -> None:
        cut = self.of_trajectory[eqn.inputs[0]]  # type: ignore[index]
        key, shape, local = id(eqn), cut.shape, self.local
        scan = next(s for s in self.built.values() if s.cut is cut)
        n_xs = len(cut.step.inputs) - shape.n_consts - shape.n_carry
        atoms = eqn.inputs[1:]
        groups = (atoms[: shape.n_consts], (), atoms[shape.n_consts : shape.n_consts + n_xs])
        consts, _, xs = self._arguments(scan, groups)
        bars = list(atoms[shape.n_consts + n_xs :])
        arguments: list[Atom] = []
        n, steps = shape.n_carry, ((0, shape.length),)
        for k, is_active in enumerate(cut.flags[key][1]):
            if not is_active:
                continue
            bar, layout = bars.pop(0), cut.layout_of_output(k)
            if layout is None:
                continue
            if k < n:
                arguments.append(self._in_layout(bar, cut.owned(k), layout))
            else:
                arguments.append(local.get_unwrapped(bar, (*steps, *layout)))
        active_in, active_out = scan.active(key)
        local_shape = scan.shape()
        params = dict(eqn.params) | {
            "step": scan.programs[None],
            "adjoint": scan.programs[key],
            "n_consts": local_shape.n_consts,
            "n_carry": local_shape.n_carry,
            "active_in": active_in,
            "active_out": active_out,
            "halo": scan.halo(key),
        }
        ((_, trajectory),) = local.local[eqn.inputs[0]]  # type: ignore[index]
        local.builder.source = eqn.source
        results = local.builder(eqn.primitive, trajectory, *consts, *xs, *arguments, **params)
        self._take_bars(eqn, scan, list(results if isinstance(results, tuple) else (results,)))

    def _take_bars(self, eqn: Equation, scan: LocalScan[ScanCut], results: list[Atom]) -> None:
        cut, key = scan.cut, id(eqn)
        n = cut.shape.n_consts + cut.shape.n_carry
        steps = ((0, cut.shape.length),)
        for k, (var, j) in enumerate(zip(eqn.outputs, cut.bar_of(key), strict=True)):
            layout, box = cut.layouts[cut.step.inputs[j]], cut.kept_bar(key, k)
            is_there = layout is not None and (box is not None or cut.is_carry(j))
            result = results.pop(0) if is_there else None
            if j >= n:
                layout = None if layout is None else (*steps, *layout)
                box = None if box is None else (*steps, *box)
            self._take(var, result, layout, box)
