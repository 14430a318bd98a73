"""Where the values of a step with loops in it belong.

A loop whose own step is a rank's own affair stays one (`loops`). One with sums over ranks in it is
written out: its sums are then those of the step. So many operations take minutes to compile that
this has a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from backsweep.errors import DecompositionError
from backsweep.ir import Atom, Equation, Program, Var
from backsweep.passes.inline import inline_calls, operations_of_scan
from backsweep.passes.linearize import vjp_program
from backsweep.passes.partition.cut import AbstractScanCut, StepCut, stacked
from backsweep.passes.partition.loops import LoopCut
from backsweep.passes.partition.placement import Anchor, NeedsSum, Placed, Placement, refused
from backsweep.passes.partition.placing import place_program
from backsweep.primitives import control as c
from backsweep.primitives.control import ScanShape, scan_shape

LARGEST_INNER = 1000
"""Operations of all steps of a scan inside a step that is written out."""

T = TypeVar("T")


class MustBeWrittenOut(Exception):
    """A loop cannot be kept as one."""

    def __init__(self, eqn: Equation) -> None:
        super().__init__(eqn.primitive.name)
        self.eqn = eqn


def place_scan(
    given: Program, shape: ScanShape, operands: Sequence[Placement]
) -> tuple[list[Placement], StepCut]:
    """Find where what a scan carries belongs: a fixpoint over its step."""
    return _with_loops(lambda step: _fixpoint(step, shape, operands), given)


def _with_loops(place: Callable[[Program], T], given: Program) -> T:
    """Place a step with its loops, or if need be with the short ones written out."""
    with suppress(MustBeWrittenOut):
        return place(inline_calls(given))
    try:
        return place(inline_calls(given, LARGEST_INNER))
    except MustBeWrittenOut as loop:
        raise _too_long(loop.eqn) from None


def place_adjoint(
    scan: AbstractScanCut,
    program: Program,
    active_in: Sequence[bool],
    bars: Sequence[Placement],
) -> StepCut:
    """Where the values of an adjoint step belong, those of given cotangents known."""
    inputs = [*(scan.forward.placed.seen[v] for v in scan.step.inputs), *bars]
    consts, carry, xs = scan.shape.split_inputs(active_in)
    whole = [False] * sum(consts) + [True] * sum(carry) + [False] * sum(xs)
    return _with_loops(lambda own: _place_step(own, inputs, whole), program)


def _unknown_reach(eqn: Equation) -> DecompositionError:
    if eqn.primitive.name.startswith("while"):
        return refused(
            eqn,
            "inside a step is not cut: how many steps it makes is only known when it runs",
            "make a fixed number of them with scan or fori_loop",
        )
    return refused(eqn, "inside a step is not cut: which cells it reads is not known", "trace it")


def _too_long(eqn: Equation) -> DecompositionError:
    return refused(
        eqn,
        "inside a step adds up over ranks, or needs another one's parts, in each of its "
        f"{eqn.params['length']} steps, {operations_of_scan(eqn.params)} operations in all; "
        f"such a loop is cut up to {LARGEST_INNER} of them",
        "make fewer inner steps in each outer one, or one scan of all inner steps",
    )


def _fixpoint(
    step: Program, shape: ScanShape, operands: Sequence[Placement]
) -> tuple[list[Placement], StepCut]:
    consts, carry, xs = shape.split_inputs(list(operands))
    xs = [Placement(x.anchors[1:], x.fixed) for x in xs]
    whole = [True] * shape.n_carry + [False] * (len(step.outputs) - shape.n_carry)
    while True:
        cut = _place_step(step, [*consts, *carry, *xs], whole)
        made = [cut.placed.of(a) for a in step.outputs[: shape.n_carry]]
        merged = [_merged(a, b) for a, b in zip(carry, made, strict=True)]
        if merged == carry:
            return carry, cut
        carry = merged


def _merged(given: Placement, made: Placement) -> Placement:
    """Of a carry: where it came from decides, then where the step puts it."""
    anchors: list[Anchor | None] = list(given.anchors)
    taken = {a.axis for a in anchors if a is not None}
    for k, a in enumerate(made.anchors):
        if anchors[k] is None and a is not None and a.axis not in taken:
            anchors[k] = a
    return Placement(tuple(anchors), given.fixed)


def _place_step(program: Program, inputs: Sequence[Placement], whole: Sequence[bool]) -> StepCut:
    loops: dict[int, LoopCut] = {}
    of_trajectory: dict[Atom, LoopCut] = {}

    def held(eqn: Equation, placed: Placed) -> list[Placement]:
        for atom in eqn.inputs:
            if isinstance(atom, Var) and placed.of(atom).is_partial:
                raise NeedsSum(atom)
        operands = [placed.of(a) for a in eqn.inputs]
        if eqn.primitive is c.scan_reverse:
            loop = loops[id(eqn)] = of_trajectory[eqn.inputs[0]]
            return _place_sweep(loop, eqn, operands)
        if eqn.primitive not in (c.scan, c.scan_forward):
            raise _unknown_reach(eqn)
        loop = loops[id(eqn)] = _place_loop(eqn, operands)
        if eqn.primitive is c.scan:
            return loop.outputs()
        of_trajectory[eqn.outputs[-1]] = loop
        return [*loop.outputs(), Placement(())]

    placed = place_program(program, inputs, whole, held)
    return StepCut(program, placed, loops)


def _place_loop(eqn: Equation, operands: Sequence[Placement]) -> LoopCut:
    given, shape = eqn.params["step"], scan_shape(eqn.params)
    carry, cut = place_scan(given, shape, operands)
    if cut.placed.parts:
        raise MustBeWrittenOut(eqn)
    return LoopCut(given, cut.program, shape, carry, cut, eqn=eqn)


def _place_sweep(loop: LoopCut, eqn: Equation, operands: Sequence[Placement]) -> list[Placement]:
    """Of the reverse of a loop: cotangents of consts, carries, xs."""
    p, shape = eqn.params, loop.shape
    active_in, active_out = tuple(p["active_in"]), tuple(p["active_out"])
    consts, _, xs = shape.split_inputs(loop.eqn.inputs)
    n = 1 + len(consts) + len(xs)
    if eqn.inputs[1:n] != (*consts, *xs):  # one layout holds for both
        raise MustBeWrittenOut(loop.eqn)
    bars = [q for q, a in zip(loop.carry, active_out, strict=False) if a]
    y_bars = [Placement(y.anchors[1:], y.fixed) for y in operands[n + len(bars) :]]
    program = vjp_program(loop.given, active_in, active_out, "reverse")
    cut = place_adjoint(loop, program, active_in, [*bars, *y_bars])
    if cut.placed.parts:
        raise MustBeWrittenOut(loop.eqn)
    loop.reverses[id(eqn)], loop.flags[id(eqn)] = cut, (active_in, active_out)
    return bars_of_inputs(loop, active_in, [cut.placed.of(a) for a in cut.program.outputs])


def bars_of_inputs(
    scan: AbstractScanCut, active_in: Sequence[bool], made: Sequence[Placement]
) -> list[Placement]:
    """Of a reverse sweep, from those of its step: a carry's cotangent lies where the carry does."""
    consts, carry, _ = scan.shape.split_inputs(active_in)
    own = [q for q, is_active in zip(scan.carry, carry, strict=True) if is_active]
    a = sum(consts)
    return [*made[:a], *own, *(stacked(x) for x in made[a + len(own) :])]
