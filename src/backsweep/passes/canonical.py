"""The last pass: brings a program into the form that kernels are made from.

* contractions become broadcast products and sums;
* a reduction runs over one last axis, or over everything;
* literal factors and signs leave pads: pad(k w) -> k pad(w), so that one w has many pads
  instead of many values with one pad each (exact: outside both are 0);
* an input that is read through several pads gets a copy that can have margins, unless it
  can have them itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from backsweep.ir import Atom, Builder, Equation, Program, Var
from backsweep.ir.builder import look_up
from backsweep.passes.factor import float_out_of_pads
from backsweep.passes.simplify import eliminate_dead, simplify
from backsweep.primitives import elementwise as ew
from backsweep.primitives import index as ix
from backsweep.primitives import reduce as red
from backsweep.primitives import shape as sh
from backsweep.primitives.gather import is_patch


def canonicalize(program: Program, owned: Sequence[bool] | None = None) -> Program:
    """An equivalent program in canonical form.

    `owned` inputs may be overwritten, and may have margins.
    """
    expanded = simplify(_expand(program))
    flags = owned or [False] * len(program.inputs)
    mine = frozenset(v for v, o in zip(program.inputs, flags, strict=True) if o)
    program = _copy_padded_inputs(simplify(float_out_of_pads(expanded)), mine)
    return _own_bases(program, mine)


def _expand(program: Program) -> Program:
    b = Builder()
    b.inputs = list(program.inputs)
    env: dict[Var, Atom] = {v: v for v in program.inputs}
    for eqn in program.equations:
        b.source = eqn.source
        ins = tuple(look_up(env, a) for a in eqn.inputs)
        rule = _EXPANSIONS.get(eqn.primitive.name)
        out = rule(b, eqn, ins) if rule is not None else None
        outs = (out,) if out is not None else b.replay(eqn, ins)
        env.update(zip(eqn.outputs, outs, strict=True))
    return b.build([look_up(env, a) for a in program.outputs], program.name)


def _expand_einsum(b: Builder, eqn: Equation, ins: Any) -> Atom | None:
    return _reduce_once(b, red.einsum_as_sum(b, eqn.params, *ins))


def _reduce_once(b: Builder, out: Atom) -> Atom:
    """Expand the sum that was just appended."""
    last = b.equations[-1]
    if last.primitive is sh.sum_ and last.outputs[0] is out:
        b.equations.pop()
        replaced = _expand_reduction(b, last, last.inputs)
        return replaced if replaced is not None else b.replay(last, last.inputs)[0]
    return out


def _expand_reduction(b: Builder, eqn: Equation, ins: Any) -> Atom | None:
    (x,), axes = ins, eqn.params["axes"]
    n = x.type.ndim
    is_sum = eqn.primitive is sh.sum_
    if is_sum and (len(axes) == n or axes == (n - 1,)):
        return None
    if not is_sum and axes == (n - 1,):
        return None
    kept = [k for k in range(n) if k not in axes]
    moved = b(sh.transpose, x, axes=(*kept, *axes))
    if len(axes) != 1:
        shape = (*(x.type.shape[k] for k in kept), int(np.prod([x.type.shape[k] for k in axes])))
        moved = b(sh.reshape, moved, shape=shape)
    return b(eqn.primitive, moved, axes=(len(kept),))


def _expand_cumsum(b: Builder, eqn: Equation, ins: Any) -> Atom | None:
    (x,), axis, reverse = ins, eqn.params["axis"], eqn.params["reverse"]
    n = x.type.ndim
    if axis == n - 1:
        return None
    order = (*(k for k in range(n) if k != axis), axis)
    moved = b(sh.transpose, x, axes=order)
    summed = b(red.cumsum, moved, axis=n - 1, reverse=reverse)
    return b(sh.transpose, summed, axes=tuple(int(k) for k in np.argsort(order)))


_EXPANSIONS: dict[str, Any] = {
    "einsum": _expand_einsum,
    "sum": _expand_reduction,
    "reduce_max": _expand_reduction,
    "reduce_min": _expand_reduction,
    "cumsum": _expand_cumsum,
}


def _own_bases(program: Program, owned: frozenset[Var]) -> Program:
    """Give each patch a base that nothing else reads, so that it may work in place."""
    uses = Counter(a for e in program.equations for a in e.inputs)
    uses.update(program.outputs)
    inputs, outputs = set(program.inputs) - owned, set(program.outputs)
    b = Builder()
    b.inputs = list(program.inputs)
    for eqn in program.equations:
        base = eqn.inputs[0] if eqn.inputs else None
        blocked = base in inputs or (base in owned and eqn.outputs[0] in outputs)
        if is_patch(eqn) and base is not None and (blocked or uses[base] > 1):
            copy = b(ew.cast, base, dtype=base.type.dtype)  # type: ignore[union-attr]
            eqn = eqn.replace_inputs((copy, *eqn.inputs[1:]))
        b.equations.append(eqn)
    return b.build(program.outputs, program.name)


def _copy_padded_inputs(program: Program, owned: frozenset[Var]) -> Program:
    pads = Counter(e.inputs[0] for e in program.equations if e.primitive is ix.pad)
    inputs = set(program.inputs) - owned
    copies: dict[Any, Var] = {}
    b = Builder()
    b.inputs = list(program.inputs)
    for var, count in pads.items():
        if count > 1 and var in inputs:
            copies[var] = b(ew.cast, var, dtype=var.type.dtype)  # type: ignore[union-attr]
    if not copies:
        return program
    equations = [
        e.replace_inputs((copies.get(e.inputs[0], e.inputs[0]),)) if e.primitive is ix.pad else e
        for e in program.equations
    ]
    kept = eliminate_dead([*b.equations, *equations], program.outputs)
    return Program(program.inputs, tuple(kept), program.outputs, program.name)
