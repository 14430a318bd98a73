"""Loops inside a step: each rank runs them over its block, with room for all of their steps.

Within a loop nothing is fetched. A rank holds so much around its block of what the loop carries
that, although each inner step can make less than it has read, what is read after the last one is
right: *held* is what is right before the first step, *kept* what is right after it and what every
step makes. From the second step on the outermost cells of it are made of others that are not right.
What is asked for is found from the end backwards, one demand for each inner step, until nothing
grows: so the cells of a loop without neighbours need no room, however many steps it has.

Known to be suboptimal: each inner step computes the same box, where later ones need less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backsweep.comm.boxes import Box, is_inside
from backsweep.ir import Equation, Var
from backsweep.passes.partition.cut import (
    MAX_HALO,
    AbstractScanCut,
    StepCut,
    demand_of,
    enclosing,
    stacked,
    walk,
)
from backsweep.passes.partition.demand import Demand, Owner, Points, unwrapped
from backsweep.passes.partition.placement import Placement, refused
from backsweep.passes.partition.placing import known_value
from backsweep.primitives.control import scan_reverse

Rooms = list[Box | None]


@dataclass
class LoopCut(AbstractScanCut):
    """A scan inside a step, and the reverse sweeps over its trajectory.

    Attributes
    ----------
    eqn : Equation
        That of the scan.
    rooms : dict of StepCut's id to (kept, held)
        Of each carry, or of its cotangent: what each step makes, what it is given at first.
    others : dict of StepCut's id to dict
        By the number of an output that is not carried: what is asked for of it.
    """

    eqn: Equation = field(kw_only=True)
    rooms: dict[int, tuple[Rooms, Rooms]] = field(default_factory=dict)
    others: dict[int, dict[int, Box | None]] = field(default_factory=dict)

    def outputs(self) -> list[Placement]:
        """Of the scan: carries, records."""
        placed, n = self.forward.placed, self.shape.n_carry
        return [*self.carry, *(stacked(placed.of(a)) for a in self.step.outputs[n:])]

    # ------------------------------------------------------------------ demands

    def need(self, eqn: Equation, demand: Demand) -> None:
        """Note what the scan, or a sweep back, reads: from what is asked for of its results."""
        self.layouts.clear()  # of an earlier walk, which asked for less
        self.y_layouts.clear()
        if eqn.primitive is scan_reverse:
            self._need_reverse(eqn, demand)
        else:
            self._need_forward(eqn, demand)

    def _need_reverse(self, eqn: Equation, demand: Demand) -> None:
        key, n = id(eqn), self.shape.n_consts
        cut, flags = self.reverses[key], self.flags[key][1]
        carried: Rooms = [None] * self.shape.n_carry
        others: dict[int, Box | None] = {}
        for k, (var, j) in enumerate(zip(eqn.outputs, self.bar_of(key), strict=True)):
            if self.is_carry(j):
                carried[j - n] = _asked(demand, var)
            else:
                others[k] = _asked(demand, var, is_stacked=j >= n)
        first = sum(self.flags[key][0][:n])
        active = [k for k in range(self.shape.n_carry) if flags[k]]
        places = {k: (first + i, len(self.step.inputs) + i) for i, k in enumerate(active)}
        self._grow(cut, carried, others, places, demand)
        bars = list(eqn.inputs[1 + len(self.step.inputs) - self.shape.n_carry :])
        for k in active:
            demand.need_unwrapped(bars.pop(0), self.held_bar(key, k))
        for k in range(self.shape.n_carry, len(flags)):
            if flags[k]:
                bar = bars.pop(0)
                box = self.read_bar(key, k)
                demand.need_unwrapped(bar, None if box is None else ((0, self.shape.length), *box))

    def _need_forward(self, eqn: Equation, demand: Demand) -> None:
        shape, n = self.shape, self.shape.n_consts
        carried: Rooms = []
        for k in range(shape.n_carry):
            read = [
                piece
                for cut in self.reverses.values()
                for piece in demand_of(cut).pieces.get(cut.program.inputs[n + k], ())
            ]
            var = eqn.outputs[k]
            carried.append(enclosing((), [*demand.made(var), *read], var.type.shape))
        others = {
            k: _asked(demand, eqn.outputs[k], is_stacked=True)
            for k in range(shape.n_carry, len(self.step.outputs))
        }
        places = {k: (k, n + k) for k in range(shape.n_carry)}
        self._grow(self.forward, carried, others, places, demand)
        self._find_layouts()
        common = self.shared([self.layouts[v] for v in self._carries()])
        self.layouts.update(zip(self._carries(), common, strict=True))
        self._find_y_layouts()
        for number, (atom, var) in enumerate(zip(eqn.inputs, self.step.inputs, strict=True)):
            if self.is_carry(number):
                demand.need_unwrapped(atom, self.held(number - n))
                continue
            layout = self.layouts[var]
            if layout is not None and number >= n:
                layout = ((0, shape.length), *layout)
            demand.need_unwrapped(atom, layout)

    def _grow(
        self,
        cut: StepCut,
        carried: Rooms,
        others: Mapping[int, Box | None],
        places: Mapping[int, tuple[int, int]],
        around: Demand,
    ) -> None:
        """What each step must make so that the last one is right, and what the first is given.

        `places` has the numbers of the output and of the input of each carry in the program.
        """
        program, owner = cut.program, around.owner
        values = self._known(cut, around)
        makers = {v: e for e in program.equations for v in e.outputs}
        rooms, n_steps = self._around(carried), 0
        while True:
            points = Points(cut.placed, owner, lambda a: known_value(a, makers, values))
            cut.demand = Demand(program, cut.placed, owner, points)
            for k, (out, _) in places.items():
                cut.demand.need_unwrapped(program.outputs[out], rooms[k])
            for k, box in others.items():
                cut.demand.need_unwrapped(program.outputs[k], box)
            walk(cut)
            wider = list(rooms)
            for k, (_, number) in places.items():
                var, room = program.inputs[number], rooms[k]
                own = [] if room is None else [room]
                wider[k] = enclosing(own, cut.demand.pieces.get(var, ()), var.type.shape)
            wider = self._around(wider)
            self._check(wider, owner)
            whole = self._whole_as(rooms, wider)
            n_steps += 1
            if whole != rooms:  # a part of a period has no place in a layout of all of it
                rooms, n_steps = whole, 0
            elif wider == rooms or n_steps == self.shape.length:
                break
            else:
                rooms = wider
        self.rooms[id(cut)], self.others[id(cut)] = (rooms, wider), dict(others)

    def _around(self, boxes: Sequence[Box | None]) -> Rooms:
        """Of each carry one box for all of its kind, at most once around a periodic axis."""
        pairs = zip(self.shared(boxes), self._carries(), strict=True)
        return [_once_around(box, v.type.shape) for box, v in pairs]

    def _whole_as(self, rooms: Rooms, wider: Rooms) -> Rooms:
        """The rooms, all of each axis of which the wider ones are all."""
        found: Rooms = []
        for var, room, wide in zip(self._carries(), rooms, wider, strict=True):
            if room is not None and wide is not None:
                ends = zip(room, wide, var.type.shape, strict=True)
                room = tuple((0, n) if w == (0, n) else r for r, w, n in ends)
            found.append(room)
        return found

    def _known(self, cut: StepCut, around: Demand) -> dict[Var, np.ndarray]:
        """Index arrays among the constants of a program of the step."""
        found = {}
        for var, atom in zip(
            cut.program.inputs[: self.shape.n_consts], self.eqn.inputs, strict=False
        ):
            if atom.type.dtype.kind in "iu":  # type: ignore[union-attr]
                value = around.points.value_of(atom)
                if value is not None:
                    found[var] = value
        return found

    def _check(self, rooms: Rooms, owner: Owner) -> None:
        for var, placement, room in zip(self._carries(), self.carry, rooms, strict=True):
            shape = var.type.shape
            own = tuple(owner.along(a, n) for a, n in zip(placement.anchors, shape, strict=True))
            if room is None:
                continue
            room = unwrapped(room, own, shape)
            for axis, ((lo, hi), (first, last)) in enumerate(zip(own, room, strict=True)):
                width = max(lo - first, last - hi)
                if width > max(hi - lo, MAX_HALO):
                    raise refused(
                        self.eqn,
                        f"inside a step of {self.shape.length} steps of its own reads "
                        f"{var.name or 'a carry'} {width} cells or more beyond the {hi - lo} of a "
                        f"rank's block along its axis {axis}",
                        "make fewer inner steps in each outer one, or cut the grid into fewer "
                        "blocks or along another axis",
                    )

    # ------------------------------------------------------------------ rooms

    def held(self, k: int) -> Box | None:
        """Of a carry before the first step: what must be right."""
        return self._moved(self.rooms[id(self.forward)], k)[1]

    def held_bar(self, key: int, k: int) -> Box | None:
        """The same of the cotangent of a carry, before the last step is reversed."""
        return self._moved(self.rooms[id(self.reverses[key])], k)[1]

    def read_bar(self, key: int, k: int) -> Box | None:
        """What a sweep reads of the cotangents of a record."""
        cut, flags = self.reverses[key], self.flags[key][1]
        var = cut.program.inputs[len(self.step.inputs) + sum(flags[:k])]
        shape = var.type.shape
        box = _once_around(enclosing((), demand_of(cut).pieces.get(var, ()), shape), shape)
        return _in_layout(box, self.y_layouts, k - self.shape.n_carry, shape)

    def kept(self, cut: StepCut, k: int) -> Box | None:
        if k < self.shape.n_carry:
            return self._moved(self.rooms[id(cut)], k)[0]
        shape = cut.program.outputs[k].type.shape
        return _in_layout(self.others[id(cut)][k], self.y_layouts, k - self.shape.n_carry, shape)

    def kept_bar(self, key: int, k: int) -> Box | None:
        cut, j = self.reverses[key], self.bar_of(key)[k]
        if self.is_carry(j):
            return self._moved(self.rooms[id(cut)], j - self.shape.n_consts)[0]
        var = self.step.inputs[j]
        layout = self.layouts.get(var)
        box = self.others[id(cut)][k]
        return box if box is None or layout is None else unwrapped(box, layout, var.type.shape)

    def right(self, key: int | None, number: int) -> Box | None:
        n, k = len(self.step.inputs), number - self.shape.n_consts
        if number < n:
            return self.held(k) if self.is_carry(number) else self.layout_of_input(key, number)
        assert key is not None
        output = [k for k, is_active in enumerate(self.flags[key][1]) if is_active][number - n]
        if output < self.shape.n_carry:
            return self.held_bar(key, output)
        return self.read_bar(key, output)

    def _moved(self, rooms: tuple[Rooms, Rooms], k: int) -> tuple[Box | None, Box | None]:
        """What is kept and held of a carry, in the coordinates of its layout."""
        (kept, held), var = (r[k] for r in rooms), self._carries()[k]
        layout = self.layouts.get(var)
        if held is None or layout is None:
            return kept, held
        moved = unwrapped(held, layout, var.type.shape)
        assert is_inside(moved, layout), (var.name, moved, layout)
        by = [a - b for (a, _), (b, _) in zip(moved, held, strict=True)]
        return kept and tuple((a + s, b + s) for (a, b), s in zip(kept, by, strict=True)), moved

    def _own(self, number: int) -> list[Box]:
        n = self.shape.n_consts
        if self.is_carry(number):
            boxes = [held[number - n] for _, held in self.rooms.values()]
        else:
            boxes = [
                self.kept_bar(key, self.bar_of(key).index(number))
                for key in self.reverses
                if number in self.bar_of(key)
            ]
        return [box for box in boxes if box is not None]


def _asked(demand: Demand, var: Var, *, is_stacked: bool = False) -> Box | None:
    """One box around what is asked for of a result: of its values in each step, if stacked."""
    first = 1 if is_stacked else 0
    shape = var.type.shape[first:]
    boxes = [box[first:] for box in demand.made(var)]
    return _once_around(enclosing((), boxes, shape), shape)


def _once_around(box: Box | None, shape: Sequence[int]) -> Box | None:
    """A box in which nothing is twice, as the ends of a periodic axis would be."""
    if box is None:
        return None
    return tuple(
        (0, n) if hi - lo >= n else (lo, hi) for (lo, hi), n in zip(box, shape, strict=True)
    )


def _in_layout(
    box: Box | None, layouts: Sequence[Box | None], k: int, shape: Sequence[int]
) -> Box | None:
    """A box in the coordinates of a layout, once that is known."""
    layout = layouts[k] if k < len(layouts) else None
    if box is None or layout is None:
        return box
    moved = unwrapped(box, layout, shape)
    assert is_inside(moved, layout), (moved, layout)
    return moved
