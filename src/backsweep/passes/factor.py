"""Fewer products in sums: k x + k y becomes k (x + y), for the same literal k.

The adjoint of a stencil reads one value at many offsets, each times its coefficient;
symmetric offsets share one. Adding first leaves 5 of the 17 products of a 2D 8th-order
Laplacian. This changes rounding, so it is for adjoint equations only: no primal value changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backsweep.ir import Atom, Builder, Equation, Literal, Program, Var
from backsweep.passes.simplify import eliminate_dead
from backsweep.primitives import elementwise as ew
from backsweep.primitives import index as ix

SUMS = (ew.add, ew.sub)


def float_out_of_pads(program: Program) -> Program:
    """Literal factors and signs leave pads (exact: outside both are 0)."""
    b = Builder()
    b.inputs, b.equations = list(program.inputs), list(program.equations)
    return b.build(_rewrite(b, 0, program.outputs, _floated), program.name)


def factor_sums(b: Builder, first: int, outputs: Sequence[Atom]) -> list[Atom]:
    """Rewrite the equations of a builder from number `first` on; returns the new outputs."""
    outputs = _rewrite(b, first, outputs, _floated)
    outputs = _rewrite(b, first, outputs, _Chains(b.equations[first:], outputs).factored)
    b.equations[first:] = eliminate_dead(b.equations[first:], tuple(outputs))
    return outputs


class _Rewriting(NamedTuple):
    """What a rule may use: the builder, the definitions in it, old values as new ones."""

    builder: Builder
    made: dict[Var, Equation]
    env: dict[Var, Atom]

    def new(self, atom: Atom) -> Atom:
        return self.env.get(atom, atom) if isinstance(atom, Var) else atom


def _rewrite(
    b: Builder,
    first: int,
    outputs: Sequence[Atom],
    rule: Callable[[_Rewriting, Equation], Atom | None],
) -> list[Atom]:
    """Replay equations; where the rule yields a value it replaces an equation's one output."""
    equations = b.equations[first:]
    del b.equations[first:]
    state = _Rewriting(b, {}, {})
    for eqn in equations:
        b.source = eqn.source
        n_before = len(b.equations)
        value = rule(state, eqn)
        if value is None:
            outs: Any = b.replay(eqn, tuple(state.new(a) for a in eqn.inputs))
        else:
            outs = (value,)
        for new in b.equations[n_before:]:
            state.made.update(dict.fromkeys(new.outputs, new))
        state.env.update(zip(eqn.outputs, outs, strict=True))
    return [state.new(a) for a in outputs]


def _literal_factor(eqn: Equation | None) -> tuple[Literal, Atom] | None:
    """(k, x) of an equation k * x with a finite literal k."""
    if eqn is None or eqn.primitive is not ew.mul:
        return None
    k, x = eqn.inputs
    if isinstance(x, Literal):
        k, x = x, k
    return (k, x) if isinstance(k, Literal) and np.isfinite(k.value) else None


def _floated(state: _Rewriting, eqn: Equation) -> Atom | None:
    b = state.builder

    def pad(x: Atom) -> Atom:
        inner = state.made.get(x) if isinstance(x, Var) else None
        found = _literal_factor(inner)
        if found is not None:
            return b(ew.mul, found[0], pad(found[1]))
        if inner is not None and inner.primitive is ew.neg:
            return b(ew.neg, pad(inner.inputs[0]))
        return b(ix.pad, x, **eqn.params)

    return pad(state.new(eqn.inputs[0])) if eqn.primitive is ix.pad else None


class _Term(NamedTuple):
    is_negative: bool
    factor: Literal | None
    value: Atom


class _Chains:
    """Sums whose partial sums nobody else reads."""

    def __init__(self, equations: Sequence[Equation], outputs: Sequence[Atom]) -> None:
        self.definitions = {v: e for e in equations for v in e.outputs}
        uses = Counter(a for e in equations for a in e.inputs)
        uses.update(outputs)
        self.inner = {
            a
            for e in equations
            if e.primitive in SUMS
            for a in e.inputs
            if uses[a] == 1 and isinstance(a, Var) and self._is_sum(a)
        }

    def _is_sum(self, var: Var) -> bool:
        return var in self.definitions and self.definitions[var].primitive in SUMS

    def factored(self, state: _Rewriting, eqn: Equation) -> Atom | None:
        """The sum that an equation ends, if factors repeat in it."""
        if eqn.primitive not in SUMS or eqn.outputs[0] in self.inner:
            return None
        groups: dict[Any, list[_Term]] = {}
        for k, term in enumerate(self._terms(eqn.outputs[0])):
            key = k if term.factor is None else ("factor", abs(term.factor.value))
            groups.setdefault(key, []).append(term)
        if all(len(g) == 1 for g in groups.values()):
            return None
        parts = sorted(groups.values(), key=lambda g: g[0].is_negative)
        return _sum(state.builder, [_product(state, g) for g in parts])

    def _terms(self, end: Var) -> list[_Term]:
        """From left to right; signs of factors become those of terms."""
        result: list[_Term] = []
        stack: list[tuple[Atom, bool]] = [(end, False)]
        while stack:
            value, is_negative = stack.pop()
            eqn = self.definitions.get(value) if isinstance(value, Var) else None
            if eqn is not None and (value is end or value in self.inner):
                left, right = eqn.inputs
                stack.append((right, is_negative != (eqn.primitive is ew.sub)))
                stack.append((left, is_negative))
            elif eqn is not None and eqn.primitive is ew.neg:
                stack.append((eqn.inputs[0], not is_negative))
            elif (found := _literal_factor(eqn)) is not None and not np.iscomplex(found[0].value):
                k = found[0]
                is_negative = is_negative != (np.real(k.value) < 0)
                result.append(_Term(is_negative, Literal(abs(k.value), k.type), found[1]))
            else:
                result.append(_Term(is_negative, None, value))
        return result


def _product(state: _Rewriting, group: list[_Term]) -> tuple[bool, Atom]:
    """Sign and absolute value of the terms of one factor."""
    sign, factor = group[0].is_negative, group[0].factor
    terms = [(t.is_negative != sign, state.new(t.value)) for t in group]
    total = _sum(state.builder, terms)
    return sign, total if factor is None else state.builder(ew.mul, factor, total)


def _sum(b: Builder, terms: list[tuple[bool, Atom]]) -> Atom:
    (is_negative, total), *rest = terms
    if is_negative:
        total = b(ew.neg, total)
    for subtracts, value in rest:
        total = b(ew.sub if subtracts else ew.add, total, value)
    return total
