"""The local programs of a scan that is cut into blocks, and what a rank runs of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from backsweep.comm.boxes import Box, box_shape, is_inside
from backsweep.ir import ArrayType, Atom, Equation, Literal, Program, Var
from backsweep.passes.delay import PATCHES
from backsweep.passes.external import all_equations
from backsweep.passes.partition.cut import AbstractScanCut, StepCut
from backsweep.passes.partition.halo import Halo, HaloField
from backsweep.passes.partition.local_loop import add_loop
from backsweep.passes.partition.localise import Localiser, same_array
from backsweep.passes.partition.loops import LoopCut
from backsweep.passes.partition.scans import ScanCut
from backsweep.passes.simplify import simplify
from backsweep.primitives.control import ScanShape
from backsweep.primitives.index import update
from backsweep.primitives.shape import full, zeros

Cut = TypeVar("Cut", bound=AbstractScanCut)


@dataclass
class _Writer:
    """Writes one local program of a scan: the step, or the adjoint step of a sweep."""

    scan: AbstractScanCut
    cut: StepCut
    key: int | None
    loops: dict[int, LocalScan[LoopCut]] = field(default_factory=dict)
    """What is written of the scans in it, by the ids of their cuts."""
    rights: dict[Var, Box | None] = field(default_factory=dict)
    """What is right of the inputs of the local program, in their layouts."""

    def __post_init__(self) -> None:
        assert self.cut.demand is not None
        self.local = Localiser(self.cut.demand)
        self.inputs = self._inputs()
        if self.key is None and not isinstance(self.scan, LoopCut):
            self._give_rooms()
        for eqn in self.cut.program.equations:
            if id(eqn) in self.cut.loops:
                self._add_loop(eqn)
            else:
                self.local.add(eqn)
        self.outputs = self._outputs() if self.key is None else self._bars(self.key)

    def program(self, n_consts: int, extras: Sequence[np.ndarray]) -> Program:
        """With all index arrays of the scan among its constants, after the first ones."""
        slots = [self.local.extra(value) for value in extras]
        inputs = (*self.inputs[:n_consts], *slots, *self.inputs[n_consts:])
        name = "step" if self.key is None else "reverse"
        equations = tuple(self.local.builder.equations)
        return simplify(Program(inputs, equations, tuple(self.outputs), name))

    def _inputs(self) -> list[Var]:
        found = [self._input(k, var) for k, var in enumerate(self.cut.program.inputs)]
        return [v for v in found if v is not None]

    def _input(self, number: int, var: Var) -> Var | None:
        layout = self.scan.layout_of_input(self.key, number)
        if layout is None:
            return None
        own = Var(var.type.with_shape(box_shape(layout)), var.name)  # type: ignore[union-attr]
        self.local.whole_inputs[var] = layout, own
        right = self.rights[own] = self.scan.right(self.key, number)
        self.local.has_unwrapped(var, layout, own, self.local.demand.pieces.get(var, ()), right)
        return own

    def _add_loop(self, eqn: Equation) -> None:
        loop = self.cut.loops[id(eqn)]
        if id(loop) not in self.loops:
            self.loops[id(loop)] = write_scan(loop)
        add_loop(self.local, eqn, self.loops[id(loop)])

    def _give_rooms(self) -> None:
        """Carries that end with patches (a source) get the room of their layout before them."""
        makers = {v: e for e in self.cut.program.equations for v in e.outputs}
        for k in range(self.scan.shape.n_carry):
            atom, layout = self.cut.program.outputs[k], self.scan.layout_of_output(k)
            box = self.scan.kept(self.cut, k)
            while layout is not None and box is not None and (eqn := makers.get(atom)):  # type: ignore[arg-type]
                demand = self.local.demand
                if eqn.primitive not in PATCHES or demand.made(eqn.outputs[0]) != [box]:
                    break
                if demand.points.is_whole(eqn, box):
                    break
                self.local.rooms[eqn.outputs[0]] = box, layout
                atom = eqn.inputs[0]

    def _outputs(self) -> list[Atom]:
        found: list[Atom] = []
        for k, atom in enumerate(self.cut.program.outputs):
            layout, box = self.scan.layout_of_output(k), self.scan.kept(self.cut, k)
            if layout is None:
                continue
            found.append(self._kept(atom, box, layout, self._old(k)))
        return found

    def _old(self, k: int) -> Var | None:
        """What stays around the part of a loop's carry that a step makes.

        It is not right, but no worse an argument of a root or a quotient than zeros would be.
        """
        if not isinstance(self.scan, LoopCut) or k >= self.scan.shape.n_carry:
            return None
        return self.local.whole_inputs[self.scan.step.inputs[self.scan.shape.n_consts + k]][1]

    def _bars(self, key: int) -> list[Atom]:
        scan, found = self.scan, []
        for k, j in enumerate(scan.bar_of(key)):
            layout, box = scan.layouts[scan.step.inputs[j]], scan.kept_bar(key, k)
            if layout is not None and (box is not None or scan.is_carry(j)):
                found.append(self._kept(self.cut.program.outputs[k], box, layout))
        return found

    def _kept(self, atom: Atom, box: Box | None, layout: Box, old: Var | None = None) -> Atom:
        """An output in its layout, zeros around it or what was there.

        What is merely handed on goes with its ghosts.
        """
        type = ArrayType(box_shape(layout), atom.type.dtype)  # type: ignore[union-attr]
        if isinstance(atom, Literal):
            return full(self.local.builder, atom, type.shape)
        handed = self.local.whole_inputs.get(atom)
        if handed is not None and handed[0] == layout:
            right = self.rights[handed[1]]
            if box is None or (right is not None and is_inside(box, right)):
                return handed[1]
        if box is None:
            return zeros(self.local.builder, type)
        if self.local.rooms.get(atom) == (box, layout):
            return self.local.get(atom, layout)
        part = self.local.get_unwrapped(atom, box)
        if old is None or box == layout:
            return self.local.placed(part, box, layout)
        starts = tuple(a - f for (a, _), (f, _) in zip(box, layout, strict=True))
        return self.local.builder(update, old, part, starts=starts, steps=(1,) * len(box))


def write_scan(scan: Cut) -> LocalScan[Cut]:
    """The local programs of a scan of which everything is settled."""
    writers = [_Writer(scan, scan.forward, None)]
    writers += [_Writer(scan, cut, key) for key, cut in scan.reverses.items()]
    extras: list[np.ndarray] = []
    for writer in writers:
        for _, value in writer.local.extras:
            if not any(same_array(value, e) for e in extras):
                extras.append(value)
    first = scan.step.inputs[: scan.shape.n_consts]
    n_consts = sum(scan.layouts[v] is not None for v in first)
    programs = {w.key: w.program(n_consts, extras) for w in writers}
    return LocalScan(scan, programs, extras)


@dataclass
class LocalScan(Generic[Cut]):
    """What one rank runs of a scan.

    Attributes
    ----------
    programs : dict
        The step under None, adjoint steps under the keys of their sweeps. All have the same
        constants.
    extras : list of ndarray
        Constants that only this rank has: index arrays; after the other constants.
    """

    cut: Cut
    programs: Mapping[int | None, Program]
    extras: list[np.ndarray]

    def kept(self, group: Sequence[Var]) -> list[int]:
        """Which inputs of the global step this rank has."""
        return [k for k, v in enumerate(group) if self.cut.layouts[v] is not None]

    def groups(self) -> tuple[list[int], list[int], list[int]]:
        """Numbers of the consts, carries and xs that this rank has."""
        consts, carry, xs = self.cut.shape.split_inputs(self.cut.step.inputs)
        return self.kept(consts), self.kept(carry), self.kept(xs)

    def ys(self) -> list[int]:
        return [k for k, y in enumerate(self.cut.y_layouts) if y is not None]

    def shape(self) -> ScanShape:
        consts, carry, _ = self.groups()
        return ScanShape(len(consts) + len(self.extras), len(carry), self.cut.shape.length)

    def active(self, key: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """Flags of the local step's inputs and outputs in a reverse sweep."""
        cut = self.cut
        active_in, active_out = cut.flags[key]
        consts, carry, xs = self.groups()
        a, c = cut.shape.n_consts, cut.shape.n_consts + cut.shape.n_carry
        outputs = cut.bar_of(key)

        def has(j: int) -> bool:
            return active_in[j] and cut.kept_bar(key, outputs.index(j)) is not None

        flags_in = [
            *(has(j) for j in consts),
            *([False] * len(self.extras)),
            *(active_in[a + j] for j in carry),
            *(has(c + j) for j in xs),
        ]
        n = cut.shape.n_carry
        flags_out = [*(active_out[j] for j in carry), *(active_out[n + j] for j in self.ys())]
        return tuple(flags_in), tuple(flags_out)

    def halo(self: LocalScan[ScanCut], key: int | None) -> Halo:
        """What is fetched after each step; with the key of a sweep, of its cotangents as well."""
        cut, n = self.cut, self.cut.shape.n_consts
        carry = list(cut.step.inputs[n : n + cut.shape.n_carry])
        programs = [cut.forward, *cut.reverses.values()]
        read = [
            self._is_read(k, [(p, p.program.inputs[n + k]) for p in programs])
            for k in range(len(carry))
        ]
        made: Any = cut.step.outputs[: len(carry)]
        sources = [carry.index(a) if a in carry else k for k, a in enumerate(made)]
        states = self._fields(range(len(carry)), read, sources)
        bars: tuple[HaloField, ...] = ()
        if key is not None:
            active = [k for k in range(len(carry)) if cut.flags[key][1][k]]
            reverse = cut.reverses[key]
            first = len(cut.step.inputs)
            read = [False] * len(carry)
            for at, k in enumerate(active):
                read[k] = self._is_read(k, [(reverse, reverse.program.inputs[first + at])])
            bars = self._fields(active, read, range(len(carry)))
        equations = (e for p in self.programs.values() for e in all_equations(p))
        adds_up = any(e.primitive.kind == "communication" for e in equations)
        return Halo(states, bars, cut.owner.decomposition.comm, adds_up)

    def _is_read(self: LocalScan[ScanCut], k: int, places: Sequence[tuple[StepCut, Var]]) -> bool:
        """Whether more of a carry is read than belongs to this rank."""
        own = self.cut.owned(k)
        for program, var in places:
            assert program.demand is not None
            for piece in program.demand.pieces.get(var, ()):
                if own is None or not is_inside(piece, own):
                    return True
        return False

    def _fields(
        self: LocalScan[ScanCut],
        members: Sequence[int],
        read: Sequence[bool],
        sources: Sequence[int],
    ) -> tuple[HaloField, ...]:
        cut, found = self.cut, []
        carry = cut.step.inputs[cut.shape.n_consts :]
        held = [k for k in members if k in self.groups()[1]]
        members = [k for k in members if cut.carry[k].has_owner]
        for k in members:
            type: Any = carry[k].type
            nothing = ((0, 0),) * type.ndim
            layout = cut.layouts[carry[k]]
            found.append(
                HaloField(
                    type.shape,
                    type.dtype,
                    cut.owned(k) or nothing,
                    layout or nothing,
                    held.index(k) if layout is not None else -1,
                    read[k],
                    members.index(sources[k]) if sources[k] in members else -1,
                )
            )
        return tuple(found)
