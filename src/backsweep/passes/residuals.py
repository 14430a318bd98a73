"""Keep residuals or states? A plain rule, and the programs that follow from it.

Where every state of a scan would be kept anyway, the values that the adjoint needs may be
kept instead. They are, if they take about the bytes of the states and one of them is dear to
compute again: the reverse sweep then does no forward arithmetic at all. (The minimum cut
of DESIGN 4 comes later.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backsweep.ir import ArrayType, Atom, Builder, Equation, Program, Var
from backsweep.passes.linearize import Linearized, linearize, transpose_equations
from backsweep.passes.simplify import simplify
from backsweep.primitives.ops import BASIC, EXPANDED_COST
from backsweep.primitives.shape import zeros

DEAR = 12
"""Operations above which computing a residual again costs more than reading it."""

SLACK = 1.25
"""Bytes of residuals per byte of states up to which residuals are kept."""


@dataclass(frozen=True)
class ResidualPlan:
    """A step split so that a sweep needs no states.

    Attributes
    ----------
    forward : Program
        consts, carry, x -> carry, ys, residuals
    reverse : Program
        consts, x, residuals, bars -> bars of the active inputs
    n_residuals : int
    """

    forward: Program
    reverse: Program
    n_residuals: int
    nbytes: int
    active_out: tuple[bool, ...]
    """Outputs whose cotangents `reverse` takes."""

    def program_for(self, given: Sequence[bool]) -> Program:
        """`reverse` with cotangents for the given outputs only; the others are 0."""
        b = Builder()
        n_bars = sum(self.active_out)
        before = [b.input(v.type, v.name) for v in self.reverse.inputs[: -n_bars or None]]
        bars = iter(self.reverse.inputs[-n_bars:] if n_bars else ())
        arguments: list[Atom] = list(before)
        for is_active, is_given in zip(self.active_out, given, strict=True):
            if is_active:
                bar = next(bars)
                arguments.append(b.input(bar.type, "bar") if is_given else zeros(b, bar.type))  # type: ignore[arg-type]
        return simplify(b.build(b.inline(self.reverse, tuple(arguments)), "reverse"))


def _depends_on(program: Program, roots: Sequence[Var]) -> set[Var]:
    reached = set(roots)
    for eqn in program.equations:
        if any(a in reached for a in eqn.inputs):
            reached.update(eqn.outputs)
    return reached


def _cost(equations: dict[Var, Equation], var: Var) -> int:
    """Operations per element to compute a value from the inputs, on the DAG."""
    seen: set[Var] = set()
    stack, total = [var], 0
    while stack:
        v = stack.pop()
        if v in seen or v not in equations:
            continue
        seen.add(v)
        eqn = equations[v]
        if eqn.primitive.kind == "elementwise":
            name = eqn.primitive.name
            total += EXPANDED_COST.get(name, getattr(BASIC.get(name), "cost", 2))
        elif eqn.primitive.kind in ("reduce", "contract", "control"):
            total += 1000
        stack.extend(a for a in eqn.inputs if isinstance(a, Var))
    return total


def plan_residuals(
    step: Program, n_consts: int, n_carry: int, active_in: Sequence[bool], state_bytes: int
) -> ResidualPlan | None:
    """The split of a step, or None where keeping states is the better plain choice."""
    parts = linearize(step, active_in)
    carry = parts.primal.inputs[n_consts : n_consts + n_carry]
    varying = _depends_on(parts.primal, carry)
    residuals = dict.fromkeys(parts.primal.outputs[parts.n_outputs :])
    kept = [r for r in residuals if isinstance(r, Var) and r in varying]
    types = [r.type for r in kept if isinstance(r.type, ArrayType)]
    if not kept or len(types) != len(kept):
        return None
    nbytes = sum(t.nbytes for t in types)
    definitions = {v: e for e in parts.primal.equations for v in e.outputs}
    if nbytes > SLACK * state_bytes or max(_cost(definitions, r) for r in kept) < DEAR:
        return None
    outputs = (*parts.primal.outputs[: parts.n_outputs], *kept)
    forward = simplify(Program(parts.primal.inputs, parts.primal.equations, outputs, "forward"))
    reverse = _reverse_program(parts, n_consts, n_carry, kept)
    if reverse is None:
        return None
    return ResidualPlan(forward, reverse, len(kept), nbytes, parts.active_out)


def _reverse_program(
    parts: Linearized, n_consts: int, n_carry: int, kept: list[Var]
) -> Program | None:
    b = Builder()
    primal = parts.primal
    given = [b.input(v.type, v.name) for v in primal.inputs]
    kept_inputs = {r: b.input(r.type, r.name) for r in kept}
    results = b.inline(primal, tuple(given))
    residuals = [
        kept_inputs.get(old, new) if isinstance(old, Var) else new
        for old, new in zip(
            primal.outputs[parts.n_outputs :], results[parts.n_outputs :], strict=True
        )
    ]
    bars = [b.input(a.type, "bar") for a in primal.outputs[: parts.n_outputs]]
    active = [bar for bar, is_active in zip(bars, parts.active_out, strict=True) if is_active]
    outputs = transpose_equations(b, parts.tangent, residuals, active)
    program = simplify(b.build(outputs, "reverse"))
    states = set(given[n_consts : n_consts + n_carry])
    if any(a in states for e in program.equations for a in e.inputs):
        return None
    unused = [bar for bar, is_active in zip(bars, parts.active_out, strict=True) if not is_active]
    inputs = tuple(v for v in program.inputs if v not in states and v not in unused)
    return Program(inputs, program.equations, program.outputs, "reverse")
