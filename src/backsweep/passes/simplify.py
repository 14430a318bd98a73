"""Constant folding, exact algebraic rewrites, common subexpressions, dead code.

Only rewrites that are exact in IEEE arithmetic (up to the sign of zero), so that a value
has the same bits in every variant of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up
from backsweep.primitives import control as c
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as g
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
from backsweep.primitives.communication import SILENT

Rule = Callable[[Builder, Equation, tuple[Atom, ...], "Definitions"], Atom | None]


class Definitions:
    """Which equation defines a variable of the program under construction."""

    def __init__(self) -> None:
        self.of: dict[Var, Equation] = {}

    def by(self, atom: Atom, primitive: Any) -> Equation | None:
        eqn = self.of.get(atom) if isinstance(atom, Var) else None
        return eqn if eqn is not None and eqn.primitive is primitive else None

    def constant(self, atom: Atom) -> Any:
        """The value of a literal, or of an array filled with one; else None."""
        if isinstance(atom, Literal):
            return atom.value
        eqn = self.by(atom, sh.broadcast)
        if eqn is not None and isinstance(eqn.inputs[0], Literal):
            return eqn.inputs[0].value
        return None

    def is_zero(self, atom: Atom) -> bool:
        value = self.constant(atom)
        return value is not None and value == 0


def simplify(program: Program, *, open_program: bool = False) -> Program:
    """The same function in fewer equations.

    `open_program` allows variables that are defined elsewhere.
    """
    b = Builder()
    env: dict[Var, Atom] = {v: v for v in program.inputs}
    definitions = Definitions()
    seen: dict[Any, tuple[Var, ...]] = {}
    for eqn in program.equations:
        b.source = eqn.source
        ins = tuple(
            a if isinstance(a, Literal) else (env.get(a, a) if open_program else env[a])
            for a in eqn.inputs
        )
        key = _key(eqn, ins)
        if key is not None and key in seen:
            env.update(zip(eqn.outputs, seen[key], strict=True))
            continue
        n_before = len(b.equations)
        rewritten = _rewrite(b, eqn, ins, definitions)
        outs: tuple[Any, ...] = (rewritten,) if rewritten is not None else b.replay(eqn, ins)
        for new in b.equations[n_before:]:
            definitions.of.update(dict.fromkeys(new.outputs, new))
        env.update(zip(eqn.outputs, outs, strict=True))
        if key is not None:
            seen[key] = outs
    outputs = tuple(
        env.get(a, a) if open_program and isinstance(a, Var) else look_up(env, a)
        for a in program.outputs
    )
    kept = eliminate_dead(b.equations, outputs)
    return Program(program.inputs, tuple(kept), outputs, program.name)


def _key(eqn: Equation, ins: tuple[Atom, ...]) -> Any:
    """Equal keys, equal values; None for what must not be shared."""
    if eqn.primitive.kind in ("control", "call", "communication"):
        return None
    atoms = tuple(a.key if isinstance(a, Literal) else a for a in ins)
    return eqn.primitive.name, atoms, tuple(sorted((k, str(v)) for k, v in eqn.params.items()))


def eliminate_dead(equations: list[Equation], outputs: tuple[Atom, ...]) -> list[Equation]:
    """Drop equations that no output needs; drop the dead outputs of scans."""
    live = {a for a in outputs if isinstance(a, Var)}
    kept: list[Equation] = []
    for eqn in reversed(equations):
        if not any(v in live for v in eqn.outputs) and not communicates(eqn):
            continue
        if eqn.primitive.name in ("scan", "scan_forward"):
            eqn = prune_scan(eqn, live)
        if eqn.primitive is c.while_forward and eqn.outputs[-1] not in live:
            eqn = Equation(c.while_loop, eqn.inputs, eqn.params, eqn.outputs[:-1], eqn.source)
        live.update(a for a in eqn.inputs if isinstance(a, Var))
        kept.append(eqn)
    kept.reverse()
    return kept


def communicates(eqn: Equation) -> bool:
    """Whether other ranks wait for an equation: it is run although its results are not used."""
    if eqn.primitive.kind == "communication":
        return eqn.primitive not in SILENT
    held = (p for p in eqn.params.values() if isinstance(p, Program))
    return "halo" in eqn.params or any(communicates(e) for p in held for e in p.equations)


def prune_scan(eqn: Equation, live: set[Var]) -> Equation:
    """A scan without the records that nobody reads; as plain scan if its trajectory is dead."""
    shape, step = c.scan_shape(eqn.params), eqn.params["step"]
    outputs, primitive = list(eqn.outputs), eqn.primitive
    trajectory = outputs.pop() if primitive is c.scan_forward else None
    if trajectory is not None and trajectory in live:
        return eqn
    keep = [k < shape.n_carry or v in live for k, v in enumerate(outputs)]
    if all(keep) and trajectory is None:
        return eqn
    kept_outs = tuple(a for a, wanted in zip(step.outputs, keep, strict=True) if wanted)
    pruned = Program(
        step.inputs, tuple(eliminate_dead(list(step.equations), kept_outs)), kept_outs, step.name
    )
    outs = tuple(v for v, wanted in zip(outputs, keep, strict=True) if wanted)
    return Equation(c.scan, eqn.inputs, {**eqn.params, "step": pruned}, outs, eqn.source)


def _rewrite(b: Builder, eqn: Equation, ins: tuple[Atom, ...], d: Definitions) -> Atom | None:
    if eqn.primitive.kind == "elementwise" and ins and all(isinstance(a, Literal) for a in ins):
        with np.errstate(all="ignore"):
            value = eqn.primitive.evaluate(eqn.params, *(a.value for a in ins))  # type: ignore
        type = eqn.outputs[0].type
        assert isinstance(type, ArrayType)
        return Literal(value, ArrayType((), type.dtype))
    rule = RULES.get(eqn.primitive.name)
    return rule(b, eqn, ins, d) if rule is not None else None


def _shaped(b: Builder, atom: Atom, eqn: Equation) -> Atom:
    """A literal result where an array is expected becomes a filled array."""
    shape = eqn.outputs[0].type.shape
    if isinstance(atom, Literal) and shape != ():
        return sh.full(b, atom, shape)
    return atom


def _is(d: Definitions, atom: Atom, value: float) -> bool:
    constant = d.constant(atom)
    return constant is not None and bool(constant == value)


def _add(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    x, y = ins
    if d.is_zero(x):
        return _shaped(b, y, eqn)
    if d.is_zero(y):
        return _shaped(b, x, eqn)
    for u, v in ((x, y), (y, x)):
        negated = d.by(v, ew.neg)
        if negated is not None:
            return b(ew.sub, u, negated.inputs[0])
        points = d.by(v, g.scatter_add)
        if points is not None and points.params["unique"] and d.is_zero(points.inputs[0]):
            if isinstance(u, Literal):
                continue
            return b(g.scatter_add, u, *points.inputs[1:], unique=True)
    return None


def _sub(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    x, y = ins
    if d.is_zero(y):
        return _shaped(b, x, eqn)
    if d.is_zero(x) and not isinstance(y, Literal):
        return b(ew.neg, y)
    negated = d.by(y, ew.neg)
    if negated is not None:
        return b(ew.add, x, negated.inputs[0])
    return None


def _mul(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    for x, y in ((ins[0], ins[1]), (ins[1], ins[0])):
        if _is(d, x, 1):
            return _shaped(b, y, eqn)
        if _is(d, x, -1) and not isinstance(y, Literal):
            return b(ew.neg, y)
        negated = d.by(x, ew.neg)
        if negated is not None:
            return b(ew.neg, b(ew.mul, negated.inputs[0], y))
    return None


def _div(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    return _shaped(b, ins[0], eqn) if _is(d, ins[1], 1) else None


def _neg(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    negated = d.by(ins[0], ew.neg)
    if negated is not None:
        return negated.inputs[0]
    difference = d.by(ins[0], ew.sub)
    if difference is not None:
        y = difference.inputs
        return b(ew.sub, y[1], y[0])
    return None


def _cast(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    return ins[0] if ins[0].type.dtype == eqn.params["dtype"] else None


def _select(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    mask = d.constant(ins[0])
    if mask is None:
        return None
    return _shaped(b, ins[1] if mask else ins[2], eqn)


def _same_type(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    return ins[0] if ins[0].type.shape == eqn.outputs[0].type.shape else None


def _broadcast(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    x, shape = ins[0], eqn.params["shape"]
    if x.type.shape == shape and not isinstance(x, Literal):
        return x
    inner = d.by(x, sh.broadcast)
    if inner is not None:
        dims = tuple(eqn.params["dims"][k] for k in inner.params["dims"])
        return b(sh.broadcast, inner.inputs[0], shape=shape, dims=dims)
    return None


def _transpose(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    axes = eqn.params["axes"]
    if axes == tuple(range(len(axes))):
        return ins[0]
    inner = d.by(ins[0], sh.transpose)
    if inner is not None:
        both = tuple(inner.params["axes"][k] for k in axes)
        if both == tuple(range(len(both))):
            return inner.inputs[0]
        return b(sh.transpose, inner.inputs[0], axes=both)
    return None


def _reshape(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    if ins[0].type.shape == eqn.params["shape"]:
        return ins[0]
    inner = d.by(ins[0], sh.reshape)
    if inner is not None:
        return b(sh.reshape, inner.inputs[0], shape=eqn.params["shape"])
    return None


def _slice(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    x, p = ins[0], eqn.params
    if x.type.shape == p["sizes"] and all(s == 1 for s in p["steps"]):
        return x
    filled = d.by(x, sh.broadcast)
    if filled is not None and isinstance(filled.inputs[0], Literal):
        return sh.full(b, filled.inputs[0], p["sizes"])
    inner = d.by(x, ix.slice_)
    if inner is not None:
        q = inner.params
        starts = tuple(
            a + s * k for a, s, k in zip(q["starts"], q["steps"], p["starts"], strict=True)
        )
        steps = tuple(s * t for s, t in zip(q["steps"], p["steps"], strict=True))
        return b(ix.slice_, inner.inputs[0], starts=starts, steps=steps, sizes=p["sizes"])
    for primitive in (ix.pad, ix.update):
        inner = d.by(x, primitive)
        if inner is not None:
            q, value = inner.params, inner.inputs[-1]
            region = (q["starts"], q["steps"], value.type.shape)
            if region == (p["starts"], p["steps"], p["sizes"]):
                return value
    return None


def _pad(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    if d.is_zero(ins[0]):
        literal = Literal(0, ArrayType((), ins[0].type.dtype))
        return sh.full(b, literal, eqn.params["shape"])
    inner = d.by(ins[0], ix.pad)
    if inner is not None:
        p, q = eqn.params, inner.params
        starts = tuple(
            a + s * k for a, s, k in zip(p["starts"], p["steps"], q["starts"], strict=True)
        )
        steps = tuple(s * t for s, t in zip(p["steps"], q["steps"], strict=True))
        return b(ix.pad, inner.inputs[0], shape=p["shape"], starts=starts, steps=steps)
    return _same_type(b, eqn, ins, d) if all(s == 1 for s in eqn.params["steps"]) else None


def _update(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    base, value = ins
    if base.type.shape == value.type.shape and all(s == 1 for s in eqn.params["steps"]):
        return value
    if d.is_zero(base):
        return b(ix.pad, value, shape=base.type.shape, **eqn.params)
    if d.is_zero(base) and d.is_zero(value):
        return base
    return None


def _sum(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    if d.is_zero(ins[0]):
        literal = Literal(0, ArrayType((), ins[0].type.dtype))
        return _shaped(b, literal, eqn)
    return ins[0] if not eqn.params["axes"] else None


def _gather(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    if d.is_zero(ins[0]):
        literal = Literal(0, ArrayType((), ins[0].type.dtype))
        return _shaped(b, literal, eqn)
    return None


def _scatter_add(b: Builder, eqn: Equation, ins: Any, d: Definitions) -> Atom | None:
    return ins[0] if d.is_zero(ins[1]) else None


RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "cast": _cast,
    "select": _select,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "slice": _slice,
    "pad": _pad,
    "update": _update,
    "sum": _sum,
    "gather": _gather,
    "scatter_add": _scatter_add,
}
__all__ = ["eliminate_dead", "simplify"]
