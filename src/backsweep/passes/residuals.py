"""Keep residuals or states? A minimum cut, and the programs that follow from it.

Where every state of a scan would be kept anyway, values inside a step may be kept instead, from
which the reverse sweep computes what it needs: components of the carry, values that the adjoint
reads, or anything between. Which ones is a minimum cut of the step, bytes against operations
(`mincut`). They are kept if that costs less than keeping states and computing everything again.

What the forward step does not compute for itself (the derivative of a sine) is computed once,
here or there: keeping it saves nothing, and computing it in the reverse sweep costs nothing
more.

The weights were measured (docs/decisions/0015-minimum-cut.md). Known to be suboptimal: caches are
not modelled, nor that a kernel which reads a value at several offsets may compute it several times;
a component of the carry that is kept as a residual is copied; where the residuals do not fit into
the budget, states are kept, not fewer residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backsweep.ir import ArrayType, Atom, Builder, Equation, Program, Var, verify
from backsweep.ir.builder import look_up
from backsweep.passes.linearize import linearize, transpose_equations
from backsweep.passes.mincut import cheapest_keeping
from backsweep.passes.simplify import eliminate_dead, simplify
from backsweep.primitives.ops import cost_of
from backsweep.primitives.reduce import einsum_size
from backsweep.primitives.shape import broadcast, zeros

KEPT = 60
"""Operations on a byte that take as long as writing it to a trajectory and reading it again."""

STATE = 10
"""The same for a byte of state that is written to a ring besides, where residuals are kept."""


@dataclass(frozen=True)
class ResidualPlan:
    """A step split so that a sweep needs no states.

    Attributes
    ----------
    forward : Program
        consts, carry, x -> carry, ys, residuals
    reverse : Program
        consts, x, residuals, bars -> bars of the active inputs
    types : tuple of ArrayType
        Of the residuals.
    active_out : tuple of bool
        Outputs whose cotangents `reverse` takes.
    """

    forward: Program
    reverse: Program
    types: tuple[ArrayType, ...]
    active_out: tuple[bool, ...]

    def program_for(self, given: Sequence[bool]) -> Program:
        """`reverse` with cotangents of the given outputs; those of other active ones are 0."""
        b = Builder()
        n_bars = sum(self.active_out)
        before = self.reverse.inputs[: len(self.reverse.inputs) - n_bars]
        arguments: list[Atom] = [b.input(v.type, v.name) for v in before]
        outputs = self.forward.outputs[: len(self.active_out)]
        for out, is_active, is_given in zip(outputs, self.active_out, given, strict=True):
            bar = b.input(out.type, _bar_name(out)) if is_given else None
            if is_active:
                assert isinstance(out.type, ArrayType)
                arguments.append(zeros(b, out.type) if bar is None else bar)
        return simplify(b.build(b.inline(self.reverse, tuple(arguments)), "reverse"))


@dataclass(frozen=True)
class Split:
    """A step and its adjoint, split at the values that the adjoint reads of the step.

    Attributes
    ----------
    primal : Program
        consts, carry, x -> carry, ys, values
    n_outputs : int
        Number of carry and ys.
    active_out : tuple of bool
        Outputs whose cotangents are given.
    bars : callable
        Appends what computes bars of the active inputs, from values and bars of active outputs.
    """

    primal: Program
    n_outputs: int
    active_out: tuple[bool, ...]
    bars: Callable[[Builder, Sequence[Atom], Sequence[Atom]], list[Atom]]


def split_of_step(step: Program, active_in: Sequence[bool]) -> Split:
    """The split of a step whose adjoint is derived from it."""
    parts = linearize(step, active_in)

    def bars(b: Builder, values: Sequence[Atom], given: Sequence[Atom]) -> list[Atom]:
        return transpose_equations(b, parts.tangent, values, given)

    return Split(simplify(parts.primal), parts.n_outputs, parts.active_out, bars)


def split_of_pair(step: Program, adjoint: Program, active_out: Sequence[bool]) -> Split:
    """The split of a step whose adjoint is given: consts, carry, x, bars -> bars."""
    b = Builder()
    inputs = tuple(b.input(v.type, v.name) for v in step.inputs)
    outputs = b.inline(step, inputs)
    env: dict[Var, Atom] = dict(zip(adjoint.inputs, inputs, strict=False))
    given = adjoint.inputs[len(inputs) :]
    linear: dict[Var, None] = dict.fromkeys(given)
    rest: list[Equation] = []
    for eqn in adjoint.equations:
        if any(a in linear for a in eqn.inputs):
            linear |= dict.fromkeys(eqn.outputs)
            rest.append(eqn)
            continue
        b.source = eqn.source
        made = b.replay(eqn, tuple(look_up(env, a) for a in eqn.inputs))
        env.update(zip(eqn.outputs, made, strict=True))
    read = (a for atoms in (*(e.inputs for e in rest), adjoint.outputs) for a in atoms)
    values = tuple(dict.fromkeys(a for a in read if isinstance(a, Var) and a not in linear))
    primal = b.build([*outputs, *(env[v] for v in values)])
    reverse = Program((*values, *given), tuple(rest), adjoint.outputs)

    def bars(b: Builder, values: Sequence[Atom], given: Sequence[Atom]) -> list[Atom]:
        return b.inline(reverse, (*values, *given))

    return Split(simplify(primal), len(outputs), tuple(active_out), bars)


def plan_residuals(
    parts: Split, n_consts: int, n_carry: int, state_bytes: int
) -> ResidualPlan | None:
    """What is kept of a step, or None where it is cheaper to keep states.

    Parameters
    ----------
    parts : Split
    n_consts, n_carry : int
    state_bytes : int
        What a step adds to a trajectory of states.
    """
    primal = parts.primal
    carry = primal.inputs[n_consts : n_consts + n_carry]
    available = {v for v in primal.inputs if v not in carry}
    wanted = [a for a in primal.outputs[parts.n_outputs :] if isinstance(a, Var)]
    equations = list(primal.equations)
    live = eliminate_dead(equations, primal.outputs[: parts.n_outputs])
    twice = {v for e in live for v in e.outputs}

    def running(eqn: Equation) -> int:
        return _operations(eqn) if any(v in twice for v in eqn.outputs) else 0

    best = cheapest_keeping(primal, available, wanted, _keeping, running)
    again = sum(map(running, eliminate_dead(equations, tuple(wanted))))
    if best.cost + STATE * state_bytes >= KEPT * state_bytes + again:
        return None
    outputs = (*primal.outputs[: parts.n_outputs], *best.kept)
    forward = simplify(Program(primal.inputs, primal.equations, outputs, "forward"))
    reverse = _reverse_program(parts, n_consts, n_carry, best.kept)
    types = tuple(v.type for v in best.kept if isinstance(v.type, ArrayType))
    return ResidualPlan(forward, reverse, types, parts.active_out)


def _bar_name(out: Atom) -> str:
    return f"{getattr(out, 'name', '') or 'y'}_bar"


def _keeping(var: Var) -> int | None:
    """Cost of a value in the trajectory. One that is empty needs no memory."""
    if not isinstance(var.type, ArrayType) or not var.type.size:
        return None
    return KEPT * var.type.nbytes


def _operations(eqn: Equation) -> int:
    """Operations times the bytes of a number: a vector holds as many bytes of any dtype."""
    p, out = eqn.params, eqn.outputs[0].type
    nested = (*(q for q in p.values() if isinstance(q, Program)), *p.get("programs", ()))
    if nested:
        return p.get("length", 1) * sum(_operations(e) for q in nested for e in q.equations)
    types = [a.type for a in (*eqn.inputs, *eqn.outputs) if isinstance(a.type, ArrayType)]
    width = max(t.dtype.itemsize for t in types)
    match eqn.primitive.kind:
        case "elementwise":
            return width * cost_of(eqn.primitive.name) * math.prod(out.shape)
        case "index":
            return 0 if eqn.primitive is broadcast else width * math.prod(out.shape)
        case "contract":
            return 2 * width * einsum_size(p, *types[:2])
    return width * max(t.size for t in types)


def _reverse_program(parts: Split, n_consts: int, n_carry: int, kept: Sequence[Var]) -> Program:
    b = Builder()
    primal = parts.primal
    given = [b.input(v.type, v.name) for v in primal.inputs]
    residuals = {v: b.input(v.type, v.name) for v in kept}
    values: dict[Var, Atom] = {**dict(zip(primal.inputs, given, strict=True)), **residuals}
    for eqn in primal.equations:
        b.source = eqn.source
        outs = b.replay(eqn, tuple(look_up(values, a) for a in eqn.inputs))
        for old, new in zip(eqn.outputs, outs, strict=True):
            values.setdefault(old, new)
    wanted = [look_up(values, a) for a in primal.outputs[parts.n_outputs :]]
    bars = [b.input(a.type, _bar_name(a)) for a in primal.outputs[: parts.n_outputs]]
    active = [bar for bar, is_active in zip(bars, parts.active_out, strict=True) if is_active]
    outputs = parts.bars(b, wanted, active)
    program = simplify(b.build(outputs, "reverse"))
    states = given[n_consts : n_consts + n_carry]
    unused = [bar for bar, is_active in zip(bars, parts.active_out, strict=True) if not is_active]
    inputs = tuple(v for v in program.inputs if v not in states and v not in unused)
    return verify(Program(inputs, program.equations, program.outputs, "reverse"))
