"""Forward mode: a program and the directions of some inputs give the directions of outputs.

    jvp : (x -> y)  becomes  (x, x_dot) -> (y, y_dot)

Structural zeros are tracked: a tangent is None where a value does not depend on the
active inputs. Everything else (linearize, transpose, reverse mode) is built on this, so
that forward and reverse mode cannot disagree (Frostig et al. 2021, arXiv:2105.09469).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backsweep.ir import ArrayType, Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up
from backsweep.primitives import elementwise as ew
from backsweep.primitives.shape import full, zeros

Tangent = Atom | None
ControlRule = Callable[..., tuple[Sequence[Atom], Sequence[Tangent]]]
CONTROL_JVP: dict[str, ControlRule] = {}


def jvp_program(
    program: Program, active: Sequence[bool], *, keep: Sequence[bool] | None = None
) -> tuple[Program, tuple[bool, ...]]:
    """The program `(inputs, tangents of active inputs) -> (outputs, tangents)`.

    `keep` says which outputs' tangents are wanted even where they are structurally zero;
    without it those that are not zero are returned. The second result says which are there.
    """
    b = Builder()
    primals = [b.input(v.type, v.name) for v in program.inputs]
    tangents: list[Tangent] = [
        b.input(v.type, v.name and f"{v.name}_dot") if is_active else None
        for v, is_active in zip(program.inputs, active, strict=True)
    ]
    outputs, out_tangents = jvp_equations(b, program, primals, tangents, split=False)
    if keep is None:
        keep = [t is not None for t in out_tangents]
    kept = [
        instantiate(b, t, out.type)
        for t, out, wanted in zip(out_tangents, outputs, keep, strict=True)
        if wanted
    ]
    return b.build([*outputs, *kept], f"jvp_{program.name}"), tuple(keep)


def jvp_equations(
    b: Builder,
    program: Program,
    primals: Sequence[Atom],
    tangents: Sequence[Tangent],
    *,
    split: bool,
) -> tuple[list[Atom], list[Tangent]]:
    """Append a program and its tangents.

    With `split`, primitives that hold programs keep their primal and their tangent part in
    equations of their own, so that the tangent part can be transposed.
    """
    env: dict[Var, Atom] = dict(zip(program.inputs, primals, strict=True))
    dots: dict[Var, Tangent] = dict(zip(program.inputs, tangents, strict=True))
    for eqn in program.equations:
        b.source = eqn.source
        ins = tuple(look_up(env, a) for a in eqn.inputs)
        in_dots = tuple(None if isinstance(a, Literal) else dots[a] for a in eqn.inputs)
        outs, out_dots = _jvp_equation(b, eqn, ins, in_dots, split)
        env.update(zip(eqn.outputs, outs, strict=True))
        dots.update(zip(eqn.outputs, out_dots, strict=True))
    outputs = [look_up(env, a) for a in program.outputs]
    out_tangents = [None if isinstance(a, Literal) else dots[a] for a in program.outputs]
    return outputs, out_tangents


def _jvp_equation(
    b: Builder, eqn: Equation, ins: tuple[Atom, ...], dots: tuple[Tangent, ...], split: bool
) -> tuple[Sequence[Atom], Sequence[Tangent]]:
    primitive = eqn.primitive
    if all(d is None for d in dots):
        outs = b.replay(eqn, ins)
        return outs, [None] * len(outs)
    if primitive.name in CONTROL_JVP:
        return CONTROL_JVP[primitive.name](b, eqn, ins, dots, split)
    if primitive.jvp is not None:
        return primitive.jvp(b, eqn, ins, dots)
    outs = b.replay(eqn, ins)
    terms = [
        _term(b, eqn, ins, dots, k, outs[0])
        for k in range(len(ins))
        if dots[k] is not None and not (primitive.linearity == "joint" and k in _linear(eqn))
    ]
    if primitive.linearity == "joint":
        terms.append(_joint_term(b, eqn, ins, dots))
    return outs, [_sum_terms(b, [t for t in terms if t is not None])]


def _linear(eqn: Equation) -> set[int]:
    return {k for k in range(len(eqn.inputs)) if eqn.primitive.is_linear_in(k)}


def _term(
    b: Builder,
    eqn: Equation,
    ins: tuple[Atom, ...],
    dots: tuple[Tangent, ...],
    k: int,
    out: Atom,
) -> Tangent:
    """The contribution of one input's tangent."""
    primitive, dot = eqn.primitive, dots[k]
    assert dot is not None
    if primitive.linearity == "multi" and primitive.is_linear_in(k):
        return b(primitive, *ins[:k], dot, *ins[k + 1 :], **eqn.params)
    if primitive.partials is None or primitive.partials[k] is None:
        return None
    partial = primitive.partials[k](b, eqn.params, ins, out)  # type: ignore[misc]
    if isinstance(partial, Literal) and partial.value == 1:
        return dot
    return b(ew.mul, partial, dot)


def _joint_term(
    b: Builder, eqn: Equation, ins: tuple[Atom, ...], dots: tuple[Tangent, ...]
) -> Tangent:
    primitive, linear = eqn.primitive, _linear(eqn)
    given = [k for k in sorted(linear) if dots[k] is not None]
    if not given:
        return None
    if primitive is ew.add and len(given) == 1:
        return dots[given[0]]
    if primitive is ew.sub and len(given) == 1:
        dot = dots[given[0]]
        assert dot is not None
        return dot if given[0] == 0 else b(ew.neg, dot)
    filled: list[Atom] = []
    for k, x in enumerate(ins):
        if k not in linear:
            filled.append(x)
        elif dots[k] is not None:
            filled.append(dots[k])  # type: ignore[arg-type]
        elif primitive.kind == "elementwise":
            filled.append(Literal(0, ArrayType((), x.type.dtype)))  # type: ignore[union-attr]
        else:
            filled.append(zeros(b, x.type))  # type: ignore[arg-type]
    return b(primitive, *filled, **eqn.params)


def _sum_terms(b: Builder, terms: list[Atom]) -> Tangent:
    total: Tangent = None
    for term in terms:
        total = term if total is None else b(ew.add, total, term)
    return total


def instantiate(b: Builder, tangent: Tangent, type: Any) -> Atom:
    """An array of zeros for a structural zero."""
    if tangent is None:
        return zeros(b, type)
    if isinstance(tangent, Literal) and type.shape != ():
        return full(b, tangent, type.shape)
    return tangent


__all__ = ["CONTROL_JVP", "instantiate", "jvp_equations", "jvp_program"]
