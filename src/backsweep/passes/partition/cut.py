"""What a scan that is cut into blocks and a loop inside its step have in common.

The step is partitioned twice, forward and in its adjoint: both are programs on global arrays, and
every value of theirs is computed by the same expression on any number of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backsweep.comm.boxes import Box, hull
from backsweep.ir import Program, Var
from backsweep.passes.partition.demand import Demand, unwrapped
from backsweep.passes.partition.placement import Placed, Placement
from backsweep.primitives.control import ScanShape

if TYPE_CHECKING:
    from backsweep.passes.partition.loops import LoopCut

MAX_HALO = 64
"""Cells around its block that a rank may hold where the block itself is narrower."""


@dataclass
class StepCut:
    """One program of a step and where its values belong.

    Attributes
    ----------
    loops : dict
        The scans in it, by the ids of their equations and of those of their reverse sweeps.
    """

    program: Program
    placed: Placed
    loops: dict[int, LoopCut]
    demand: Demand | None = None

    def output(self, k: int) -> Placement:
        """Of an output; what belongs to one place of the grid is a partial value."""
        found = self.placed.of(self.program.outputs[k])
        if found.fixed and not found.is_partial:
            return Placement(found.anchors, found.fixed, True)
        return found


@dataclass
class AbstractScanCut(ABC):
    """A scan and the reverse sweeps over its trajectory.

    Attributes
    ----------
    given : Program
        Its step.
    step : Program
        The same, with all that it calls in it.
    carry : list of Placement
    forward : StepCut
    reverses : dict of int to StepCut
        Adjoint steps, by the ids of the equations of their sweeps.
    flags : dict
        Which inputs and outputs of the step are active in them.
    layouts : dict
        What the rank holds of the inputs of the step.
    y_layouts : list
        The same of its records.
    """

    given: Program
    step: Program
    shape: ScanShape
    carry: list[Placement]
    forward: StepCut
    reverses: dict[int, StepCut] = field(default_factory=dict)
    flags: dict[int, tuple[tuple[bool, ...], tuple[bool, ...]]] = field(default_factory=dict)
    layouts: dict[Var, Box | None] = field(default_factory=dict)
    y_layouts: list[Box | None] = field(default_factory=list)

    @abstractmethod
    def kept(self, cut: StepCut, k: int) -> Box | None:
        """The part of an output of the step that the rank computes and keeps."""

    @abstractmethod
    def kept_bar(self, key: int, k: int) -> Box | None:
        """The part of an output of the adjoint step that the rank computes and keeps."""

    @abstractmethod
    def right(self, key: int | None, number: int) -> Box | None:
        """What is right of an input of the step (key None), or of an adjoint step, in each step.

        It is the layout, or a part of it, in the same coordinates.
        """

    @abstractmethod
    def _own(self, number: int) -> list[Box]:
        """What the layout of an input of the step must have room for besides what is read."""

    def is_carry(self, j: int) -> bool:
        """Whether an input of the step is a carry."""
        return 0 <= j - self.shape.n_consts < self.shape.n_carry

    def bar_of(self, key: int) -> list[int]:
        """Inputs of the step that have a cotangent, in the order of the outputs."""
        return [j for j, is_active in enumerate(self.flags[key][0]) if is_active]

    def layout_of_output(self, k: int) -> Box | None:
        n = self.shape.n_carry
        if k < n:
            return self.layouts[self.step.inputs[self.shape.n_consts + k]]
        return self.y_layouts[k - n]

    def layout_of_input(self, key: int | None, number: int) -> Box | None:
        """Of an input of the step, or of an adjoint step."""
        n = len(self.step.inputs)
        if number < n:
            return self.layouts[self.step.inputs[number]]
        assert key is not None
        active = [k for k, is_active in enumerate(self.flags[key][1]) if is_active]
        return self.layout_of_output(active[number - n])

    def pieces(self, number: int) -> list[Box]:
        """What is read of an input of the step, in any of its programs."""
        assert self.forward.demand is not None
        found = list(self.forward.demand.pieces.get(self.step.inputs[number], ()))
        for cut in self.reverses.values():
            assert cut.demand is not None
            found += cut.demand.pieces.get(cut.program.inputs[number], ())
        if self.is_carry(number):
            found += self.read_of_bars(number - self.shape.n_consts)
        return found

    def read_of_bars(self, k: int) -> list[Box]:
        """What is read of the cotangents of an output of the step."""
        found: list[Box] = []
        for key, cut in self.reverses.items():
            active_out = self.flags[key][1]
            if active_out[k]:
                assert cut.demand is not None
                bar = cut.program.inputs[len(self.step.inputs) + sum(active_out[:k])]
                found += cut.demand.pieces.get(bar, ())
        return found

    def _find_layouts(self) -> None:
        for number, var in enumerate(self.step.inputs):
            self.layouts[var] = enclosing(self._own(number), self.pieces(number), var.type.shape)

    def _find_y_layouts(self) -> None:
        for k in range(self.shape.n_carry, len(self.step.outputs)):
            own = [b for b in (self.kept(self.forward, k),) if b is not None]
            shape = self.step.outputs[k].type.shape
            self.y_layouts.append(enclosing(own, self.read_of_bars(k), shape))

    def shared(self, boxes: Sequence[Box | None]) -> list[Box | None]:
        """Of each carry: one box for all of its kind, which may be handed on."""
        groups: dict[Any, Box] = {}
        keys = [(a.type.shape, p) for a, p in zip(self._carries(), self.carry, strict=True)]
        for key, box in zip(keys, boxes, strict=True):
            if box is not None:
                own = groups.get(key, box)
                groups[key] = hull(own, unwrapped(box, own, key[0]))
        return [groups.get(key) for key in keys]

    def _carries(self) -> tuple[Var, ...]:
        n = self.shape.n_consts
        return self.step.inputs[n : n + self.shape.n_carry]


def stacked(placement: Placement) -> Placement:
    """Of the values of all steps."""
    return Placement((None, *placement.anchors), placement.fixed, placement.is_partial)


def enclosing(own: Sequence[Box], read: Sequence[Box], shape: Sequence[int]) -> Box | None:
    """One box around what a rank owns and reads, over the ends of periodic axes if need be."""
    boxes = [*own, *sorted(read)]
    if not boxes:
        return None
    found = boxes[0]
    for box in boxes[1:]:
        found = hull(found, unwrapped(box, found, shape))
    return found


def demand_of(cut: StepCut) -> Demand:
    assert cut.demand is not None
    return cut.demand


def walk(cut: StepCut) -> None:
    """Note what all equations of a program read, from its last one to its first."""
    assert cut.demand is not None
    for eqn in reversed(cut.program.equations):
        if eqn.primitive.kind == "control":
            cut.loops[id(eqn)].need(eqn, cut.demand)
        else:
            cut.demand.walk(eqn)
