"""Derivatives of one value along several paths are added up before they are multiplied.

The tangent of f(d) = d (d d + e)**-1.5 reaches d_dot along three paths. As one product
(df/dd) d_dot its transpose multiplies each cotangent once, and every cotangent that is pulled
back through the same f shares df/dd: half the arithmetic of an adjoint sum over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from backsweep.ir import Atom, Builder, Equation, Program, Var
from backsweep.ir.builder import scalar
from backsweep.passes.simplify import eliminate_dead
from backsweep.primitives import elementwise as ew


@dataclass(frozen=True)
class _Multiple:
    """A linear value as a product: factors times `root`, in the order of the chain rule."""

    root: Var
    factors: tuple[Atom, ...] = ()
    is_negative: bool = False


def accumulate_derivatives(tangent: Program) -> tuple[list[Equation], Program]:
    """Rewrite sums of multiples of one value.

    Parameters
    ----------
    tangent : Program
        Its inputs are tangents; every other free variable is a residual.

    Returns
    -------
    equations : list of Equation
        New residuals: sums of factors.
    program : Program
    """
    before = Builder()
    multiples: dict[Atom, _Multiple] = {v: _Multiple(v) for v in tangent.inputs}
    equations: list[Equation] = []
    for eqn in tangent.equations:
        if not any(a in multiples for a in eqn.inputs):
            equations.append(eqn)
            continue
        before.source = eqn.source
        found = _sum_of_multiples(before, eqn, multiples)
        out = eqn.outputs[0]
        if found is not None:
            product = (found.factors[0], found.root)
            equations.append(Equation(ew.mul, product, {}, eqn.outputs, eqn.source))
            multiples[out] = found
            continue
        equations.append(eqn)
        for v in eqn.outputs:
            multiples[v] = _Multiple(v)
        extended = _extended(eqn, multiples)
        if extended is not None:
            multiples[out] = extended
    kept = tuple(eliminate_dead(equations, tangent.outputs))
    used = tuple(a for e in kept for a in e.inputs)
    added = eliminate_dead(before.equations, used)
    return list(added), Program(tangent.inputs, kept, tangent.outputs, tangent.name)


def _extended(eqn: Equation, multiples: dict[Atom, _Multiple]) -> _Multiple | None:
    """The multiple that a product or a negation of a multiple is."""
    if eqn.primitive is ew.neg:
        m = multiples[eqn.inputs[0]]
        return _Multiple(m.root, m.factors, not m.is_negative)
    if eqn.primitive is not ew.mul or _is_complex(eqn):
        return None
    k, x = eqn.inputs
    if k in multiples:
        k, x = x, k
    if k in multiples:
        return None
    m = multiples[x]
    return _Multiple(m.root, (*m.factors, k), m.is_negative)


def _sum_of_multiples(
    before: Builder, eqn: Equation, multiples: dict[Atom, _Multiple]
) -> _Multiple | None:
    """a root +- b root as (a +- b) root."""
    if eqn.primitive not in (ew.add, ew.sub) or _is_complex(eqn):
        return None
    x, y = (multiples.get(a) for a in eqn.inputs)
    if x is None or y is None or x.root is not y.root or not (x.factors or y.factors):
        return None
    if x.root.type != eqn.outputs[0].type:
        return None
    a, b = _factor(before, x), _factor(before, y)
    y_is_negative = y.is_negative != (eqn.primitive is ew.sub)
    total = before(ew.add if x.is_negative == y_is_negative else ew.sub, a, b)
    return _Multiple(x.root, (before(ew.neg, total) if x.is_negative else total,))


def _factor(before: Builder, m: _Multiple) -> Atom:
    if not m.factors:
        return scalar(1, m.root)
    total = m.factors[0]
    for factor in m.factors[1:]:
        total = before(ew.mul, total, factor)
    return total


def _is_complex(eqn: Equation) -> bool:
    return eqn.outputs[0].type.dtype.kind == "c"  # type: ignore[union-attr]
