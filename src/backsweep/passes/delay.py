"""A cotangent that is elementwise in another one need not be stored.

In a second-order scheme the adjoint of u_prev is `f(u_bar)` with f linear and elementwise.
Instead of storing it, the old u_bar is handed on and f is applied where it is read: one
array and one output fewer. f(0) = 0, so this may begin from a zero cotangent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from backsweep.ir import Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up
from backsweep.passes.simplify import simplify
from backsweep.primitives import gather as ga
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh

PATCHES = (ga.scatter, ga.scatter_add)


@dataclass(frozen=True)
class Delayed:
    """A reverse program in which some cotangents are handed on.

    Attributes
    ----------
    program : Program
        Delayed inputs hold the old value of the cotangent that they follow; their outputs
        are dropped.
    follows : dict
        Delayed bar -> the bar whose (patched) old value it holds.
    recover : dict
        Delayed bar -> program (consts, old value) -> the cotangent itself.
    """

    program: Program
    follows: dict[int, int]
    recover: dict[int, Program]


def delay(
    program: Program,
    n_consts: int,
    n_before: int,
    n_bars: int,
    first_out: int,
    stored: Collection[int] = (),
) -> Delayed:
    """Find and delay cotangents.

    Inputs `n_before ... n_before + n_bars` are the carry's cotangents, outputs
    `first_out ... first_out + n_bars` the new ones; the first `n_consts` inputs are constant.
    Bars that are to be `stored` are not delayed.
    """
    bars = program.inputs[n_before : n_before + n_bars]
    definitions = {v: e for e in program.equations for v in e.outputs}
    found: dict[int, tuple[int, Var]] = {}
    consts = set(program.inputs[:n_consts])
    for k in range(n_bars):
        out = program.outputs[first_out + k]
        leaves = None if k in stored else _leaves(out, definitions, consts)
        if leaves is None or len(leaves) != 1 or not isinstance(out, Var):
            continue
        source = leaves.pop()
        j = _patched_bar(source, definitions, list(bars))
        taken = {old for old, _ in found.values()}
        if j is None or j == k or j in taken or j in found or k in taken:
            continue
        if source.type == bars[k].type and _is_private(program, definitions, source, bars[j]):
            found[k] = (j, source)
    if not found:
        return Delayed(program, {}, {})
    return _rewrite(program, definitions, found, n_consts, n_before, first_out)


def _leaves(
    atom: Atom, definitions: dict[Var, Equation], consts: set[Var], at: tuple[int, ...] = ()
) -> set[Var] | None:
    """The values below an elementwise expression that are not constant.

    It may be of a part of an array, with zeros around it: element `at` of the value below is the
    first one, which must be in its place again where that value is reached.
    """
    if isinstance(atom, Literal) or atom in consts:
        return set()
    eqn = definitions.get(atom)
    if eqn is None or eqn.primitive in PATCHES:
        return None if any(at) else {atom}
    if eqn.primitive in (ix.slice_, ix.pad) and all(s == 1 for s in eqn.params["steps"]):
        sign = 1 if eqn.primitive is ix.slice_ else -1
        starts = tuple(sign * s for s in eqn.params["starts"])
        moved = tuple(a + s for a, s in zip(at or (0,) * len(starts), starts, strict=True))
        return _leaves(eqn.inputs[0], definitions, consts, moved)
    # Too dear to be computed where it is read; and not every rank may delay what another one does.
    if eqn.primitive.kind in ("control", "communication"):
        return None
    if eqn.primitive.kind != "elementwise" and eqn.primitive is not sh.broadcast:
        inner = [_leaves(a, definitions, consts) for a in eqn.inputs]
        return set() if eqn.inputs and all(i == set() for i in inner) else None
    result: set[Var] = set()
    for a in eqn.inputs:
        below = _leaves(a, definitions, consts, () if eqn.primitive is sh.broadcast else at)
        if below is None:
            return None
        result |= below
    return result if eqn.primitive is not sh.broadcast or not result else None


def _patched_bar(var: Var, definitions: dict[Var, Equation], bars: list[Var]) -> int | None:
    while var not in bars:
        eqn = definitions.get(var)
        if eqn is None or eqn.primitive not in PATCHES or not isinstance(eqn.inputs[0], Var):
            return None
        var = eqn.inputs[0]
    return bars.index(var)


def _is_private(program: Program, definitions: dict[Var, Equation], source: Var, bar: Var) -> bool:
    """Every value on the way from the bar to its last patch is read by that patch alone."""
    var = source
    while var is not bar:
        base = definitions[var].inputs[0]
        readers = sum(a is base for e in program.equations for a in e.inputs)
        if readers != 1 or base in program.outputs:
            return False
        assert isinstance(base, Var)
        var = base
    return source not in program.outputs


def _rewrite(
    program: Program,
    definitions: dict[Var, Equation],
    found: dict[int, tuple[int, Var]],
    n_consts: int,
    n_before: int,
    first_out: int,
) -> Delayed:
    b = Builder()
    inputs = [b.input(v.type, v.name) for v in program.inputs]
    env: dict[Var, Atom] = dict(zip(program.inputs, inputs, strict=True))
    recover = {}
    for k, (_, source) in found.items():
        out = program.outputs[first_out + k]
        own = _function(program, out, source, n_consts)
        recover[k] = own
        value = b.inline(own, (*inputs[:n_consts], inputs[n_before + k]))[0]
        env[program.inputs[n_before + k]] = value
    for eqn in program.equations:
        b.source = eqn.source
        outs = b.replay(eqn, tuple(look_up(env, a) for a in eqn.inputs))
        env.update(zip(eqn.outputs, outs, strict=True))
    outputs = [look_up(env, a) for k, a in enumerate(program.outputs) if k - first_out not in found]
    follows = {k: j for k, (j, _) in found.items()}
    return Delayed(simplify(b.build(outputs, program.name)), follows, recover)


def _function(program: Program, out: Atom, source: Var, n_consts: int) -> Program:
    """The elementwise function from constants and the source to an output."""
    inputs = (*program.inputs[:n_consts], source)
    below: set[Var] = {source}
    equations = []
    needed = {out}
    for eqn in reversed(program.equations):
        if any(v in needed for v in eqn.outputs) and source not in eqn.outputs:
            needed.update(a for a in eqn.inputs if isinstance(a, Var) and a not in below)
            equations.append(eqn)
    b = Builder()
    fresh = tuple(b.input(v.type, v.name) for v in inputs)
    outputs = b.inline(Program(inputs, tuple(reversed(equations)), (out,)), fresh)
    return b.build(outputs, "recover")
