"""Reverse mode from forward mode: split off the tangent-linear program, transpose it.

linearize : (x -> y)                    becomes  x -> (y, residuals)
                                        and      (residuals, x_dot) -> y_dot
transpose : (residuals, x_dot) -> y_dot becomes  (residuals, y_bar) -> x_bar
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backsweep.errors import ProgramError
from backsweep.ir import Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up, scalar
from backsweep.passes.accumulate import accumulate_derivatives
from backsweep.passes.factor import factor_sums
from backsweep.passes.jvp import instantiate, jvp_equations
from backsweep.passes.simplify import simplify
from backsweep.primitives import elementwise as ew

CONTROL_TRANSPOSE: dict[str, Callable[..., list[Any]]] = {}


@dataclass(frozen=True)
class Linearized:
    """A program split at a point.

    Attributes
    ----------
    primal : Program
        inputs -> (outputs, residuals)
    tangent : Program
        (residuals, tangents of the active inputs) -> tangents of the active outputs
    n_outputs, n_residuals : int
    active_out : tuple of bool
        Which outputs depend on the active inputs.
    """

    primal: Program
    tangent: Program
    n_outputs: int
    n_residuals: int
    active_out: tuple[bool, ...]


def linearize(program: Program, active: Sequence[bool]) -> Linearized:
    """Split the JVP of a program into what depends on tangents and what does not."""
    b = Builder()
    primals = [b.input(v.type, v.name) for v in program.inputs]
    dots = [
        Var(v.type, v.name and f"{v.name}_dot") if is_active else None
        for v, is_active in zip(program.inputs, active, strict=True)
    ]
    outputs, out_dots = jvp_equations(b, program, primals, dots, split=True)
    dot_inputs = tuple(d for d in dots if d is not None)
    linear: set[Var] = set(dot_inputs)
    before: list[Equation] = []
    after: list[Equation] = []
    for eqn in b.equations:
        if any(a in linear for a in eqn.inputs):
            after.append(eqn)
            linear.update(eqn.outputs)
        else:
            before.append(eqn)
    tangent_outs = [d for d in out_dots if d is not None]
    tangent = simplify(Program(dot_inputs, tuple(after), tuple(tangent_outs)), open_program=True)
    factors, tangent = accumulate_derivatives(tangent)
    before += factors
    used = {a for e in tangent.equations for a in e.inputs if isinstance(a, Var)}
    used |= {a for a in tangent.outputs if isinstance(a, Var)}
    candidates = [*b.inputs, *(v for e in before for v in e.outputs)]
    residuals = tuple(v for v in candidates if v in used)
    primal = Program(
        tuple(b.inputs), tuple(before), (*outputs, *residuals), f"primal_{program.name}"
    )
    tangent = Program(
        (*residuals, *dot_inputs), tangent.equations, tangent.outputs, f"tangent_{program.name}"
    )
    active_out = tuple(d is not None for d in out_dots)
    return Linearized(primal, tangent, len(outputs), len(residuals), active_out)


def transpose(program: Program, n_residuals: int, given: Sequence[bool] | None = None) -> Program:
    """The adjoint of a program that is linear in its inputs after the first `n_residuals`.

    `given` says for which outputs a cotangent is passed (the others are zero).
    """
    b = Builder()
    residuals = [b.input(v.type, v.name) for v in program.inputs[:n_residuals]]
    given = [True] * len(program.outputs) if given is None else given
    cts = [
        b.input(a.type, "bar") if is_given else None
        for a, is_given in zip(program.outputs, given, strict=True)
    ]
    bars = transpose_equations(b, program, residuals, cts)
    return b.build(bars, program.name.replace("tangent", "adjoint"))


def transpose_equations(
    b: Builder, program: Program, residuals: Sequence[Atom], cts: Sequence[Atom | None]
) -> list[Atom]:
    """Append the adjoint of a linear program; returns the cotangents of its linear inputs."""
    n = len(residuals)
    env: dict[Var, Atom] = dict(zip(program.inputs[:n], residuals, strict=True))
    linear: set[Var] = set(program.inputs[n:])
    nonlinear: list[Equation] = []
    for eqn in program.equations:
        if any(a in linear for a in eqn.inputs):
            linear.update(eqn.outputs)
        else:
            nonlinear.append(eqn)
    for eqn in nonlinear:
        b.source = eqn.source
        outs = b.replay(eqn, tuple(look_up(env, a) for a in eqn.inputs))
        env.update(zip(eqn.outputs, outs, strict=True))
    first = len(b.equations)
    bars: dict[Var, Atom] = {}
    masks: dict[Atom, Atom] = {}

    def accumulate(var: Atom, ct: Atom | None) -> None:
        if ct is None or not isinstance(var, Var):
            return
        if var not in bars:
            bars[var] = ct
            return
        first, bars[var] = bars[var], b(ew.add, bars[var], ct)
        if first in masks and ct in masks:
            masks[bars[var]] = b(ew.logical_or, masks[first], masks[ct])

    for out, ct in zip(program.outputs, cts, strict=True):
        accumulate(out, ct)
    for eqn in reversed(program.equations):
        if not any(v in bars and v in linear for v in eqn.outputs):
            continue
        b.source = eqn.source
        out_cts = [bars.pop(v, None) for v in eqn.outputs]
        pulled = _pull_back(b, eqn, env, linear, out_cts)
        pulled, marks = _block_nan(b, eqn, env, masks.get(out_cts[0]), pulled)  # type: ignore
        for atom, ct, mark in zip(eqn.inputs, pulled, marks, strict=True):
            if isinstance(atom, Var) and atom in linear:
                if mark is not None and isinstance(ct, Var):
                    masks[ct] = mark
                accumulate(atom, ct)
    outputs = [instantiate(b, bars.get(v), v.type) for v in program.inputs[n:]]
    return factor_sums(b, first, outputs)


def _block_nan(
    b: Builder, eqn: Equation, env: dict[Var, Atom], outer: Atom | None, pulled: list[Any]
) -> tuple[list[Any], list[Atom | None]]:
    """Keep NaN of a branch not taken out of cotangents: 0 times infinity must stay 0.

    A cotangent that came through a `select` remembers where it can differ from 0; after each
    product along elementwise equations the rest is set to 0 again. Returns cotangents, masks.
    """
    if eqn.primitive is ew.select:
        mask = look_up(env, eqn.inputs[0])
        own = [None, mask, b(ew.logical_not, mask)]
        if outer is not None:
            own = [m and b(ew.logical_and, m, outer) for m in own]
        return pulled, own
    if eqn.primitive.kind != "elementwise" or outer is None:
        return pulled, [None] * len(pulled)
    if eqn.primitive in (ew.mul, ew.div):
        pulled = [
            b(ew.select, outer, ct, scalar(0, ct)) if isinstance(ct, Var) else ct for ct in pulled
        ]
    return pulled, [outer] * len(pulled)


def _pull_back(
    b: Builder, eqn: Equation, env: dict[Var, Atom], linear: set[Var], cts: list[Atom | None]
) -> list[Any]:
    is_linear = [isinstance(a, Var) and a in linear for a in eqn.inputs]
    inputs = tuple(
        a if is_lin or isinstance(a, Literal) else env[a]
        for a, is_lin in zip(eqn.inputs, is_linear, strict=True)
    )
    local = eqn.replace_inputs(inputs)
    if eqn.primitive.name in CONTROL_TRANSPOSE:
        return CONTROL_TRANSPOSE[eqn.primitive.name](b, local, cts, is_linear)
    if eqn.primitive.transpose is None:
        raise ProgramError(f"{eqn.primitive.name} stands in a linear program: no transpose")
    return eqn.primitive.transpose(b, local, cts, is_linear)


def vjp_program(
    program: Program, active_in: Sequence[bool], active_out: Sequence[bool], name: str = ""
) -> Program:
    """Primal and adjoint in one: `(inputs, y_bar of active_out) -> x_bar of active_in`.

    Residuals are recomputed from the inputs; what the adjoint does not need is dead code.
    """
    parts = linearize(program, active_in)
    b = Builder()
    arguments = tuple(b.input(v.type, v.name) for v in program.inputs)
    cts = [
        b.input(a.type, f"{getattr(a, 'name', '') or 'y'}_bar") if is_active else None
        for a, is_active in zip(program.outputs, active_out, strict=True)
    ]
    primal = b.inline(parts.primal, arguments)
    residuals = primal[parts.n_outputs :]
    tangent_cts = [ct for ct, active in zip(cts, parts.active_out, strict=True) if active]
    bars = transpose_equations(b, parts.tangent, residuals, tangent_cts)
    return simplify(b.build(bars, name or f"vjp_{program.name}"))
