"""Before lowering: what a step calls becomes part of it.

* `remat`, its tangent and its reverse become equations: a step that is reversed from its
  state computes its values again anyway;
* a sum over items becomes equations, in the order of its tree;
* the tangent of a scan becomes the scan of its JVP;
* a scan of no step or of one (`jit`) is no loop;
* where it is asked for, so is no short scan: its steps become equations, one after the other.

What stays are scans of two steps and more, and those that are too long to be written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up
from backsweep.passes.control import jvp_step
from backsweep.passes.jvp import jvp_program
from backsweep.passes.linearize import vjp_program
from backsweep.primitives import control as c
from backsweep.primitives import elementwise as ew
from backsweep.primitives import index as ix
from backsweep.primitives.shape import full, reshape, zeros


def inline_calls(program: Program, largest_scan: int = 0) -> Program:
    """An equivalent program whose only control equations are scans of several steps.

    Parameters
    ----------
    program : Program
    largest_scan : int
        Scans of up to so many operations (`operations_of_scan`) are written out, and their reverse
        sweeps with them. The values keep their bits.
    """
    if not any(e.primitive.kind == "control" for e in program.equations):
        return program
    inliner = _Inliner(largest_scan)
    b = inliner.builder
    arguments = [b.input(v.type, v.name) for v in program.inputs]
    return b.build(inliner.run(program, arguments), program.name)


def operations_of_scan(params: Any) -> int:
    """Equations of all steps of a scan, those of scans in them included."""
    return c.scan_shape(params).length * _operations(params["step"])


def _operations(program: Program) -> int:
    return sum(
        operations_of_scan(e.params) if e.primitive in (c.scan, c.scan_forward) else 1
        for e in program.equations
    )


class _Inliner:
    """Appends programs to one builder."""

    def __init__(self, largest_scan: int) -> None:
        self.builder = Builder()
        self.largest_scan = largest_scan
        self.states: dict[Var, list[Sequence[Atom]]] = {}
        """Of the scans that are written out, by their trajectory: what each step began with."""

    def run(self, program: Program, arguments: Sequence[Atom]) -> list[Atom]:
        """Append a program; returns its outputs."""
        env: dict[Var, Any] = dict(zip(program.inputs, arguments, strict=True))
        for eqn in program.equations:
            self.builder.source = eqn.source
            ins = tuple(look_up(env, a) for a in eqn.inputs)
            rule = _RULES.get(eqn.primitive.name)
            outs = rule(self, eqn, ins) if rule is not None else self.builder.replay(eqn, ins)
            env.update(zip(eqn.outputs, outs, strict=True))
        return [look_up(env, a) for a in program.outputs]


Rule = Callable[[_Inliner, Equation, tuple[Any, ...]], Sequence[Atom]]


def _remat(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    return r.run(eqn.params["program"], ins)


def _remat_tangent(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p = eqn.params
    program, _ = jvp_program(p["program"], p["active_in"], keep=p["active_out"])
    return r.run(program, ins)[len(p["program"].outputs) :]


def _remat_reverse(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p = eqn.params
    return r.run(vjp_program(p["program"], p["active_in"], p["active_out"]), ins)


def _sum_of(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    terms = (r.run(program, ins) for program in eqn.params["programs"])
    return c.along_tree(terms, lambda total, value: r.builder(ew.add, total, value))


def _scan_tangent(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p, shape = eqn.params, c.scan_shape(eqn.params)
    n = len(p["step"].inputs)
    given = iter(ins[1 + n :])
    dots = [next(given) if is_active else None for is_active in p["active_in"]]
    groups = zip(shape.split_inputs(ins[1 : 1 + n]), shape.split_inputs(dots), strict=True)
    joined = [a for primals, ds in groups for a in (*primals, *(d for d in ds if d is not None))]
    n_dots = sum(p["active_out"][: shape.n_carry])
    outs = _jvp_scan(r, eqn, joined, n_dots)
    n_y = len(p["step"].outputs) - shape.n_carry
    carry_dots = outs[shape.n_carry : shape.n_carry + n_dots]
    return [*carry_dots, *outs[shape.n_carry + n_dots + n_y :]]


def _jvp_scan(r: _Inliner, eqn: Equation, joined: list[Any], n_dots: int) -> Sequence[Atom]:
    p, shape = eqn.params, c.scan_shape(eqn.params)
    params = {
        "step": jvp_step(p["step"], shape.n_consts, shape.n_carry, p["active_in"], p["active_out"]),
        "n_consts": shape.n_consts + sum(p["active_in"][: shape.n_consts]),
        "n_carry": shape.n_carry + n_dots,
        "length": shape.length,
    }
    out_types = c.scan.type_rule(params, *(a.type for a in joined))
    outputs = tuple(Var(t) for t in out_types)
    return _scan(r, Equation(c.scan, tuple(joined), params, outputs, eqn.source), tuple(joined))


def _scan(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p, shape, b = eqn.params, c.scan_shape(eqn.params), r.builder
    if shape.length > 1 and operations_of_scan(p) > r.largest_scan:
        return b.replay(eqn, ins)
    consts, carry, xs = shape.split_inputs(ins)
    states: list[Sequence[Atom]] = []
    rows: list[Sequence[Atom]] = []
    for n in range(shape.length):
        states.append(carry)
        results = r.run(p["step"], [*consts, *carry, *(_row(b, x, n) for x in xs)])
        carry, records = shape.split_outputs(results)
        rows.append(records)
    outs = [*carry, *_stacks(b, rows, shape.split_outputs(p["step"].out_types)[1])]
    if eqn.primitive is c.scan_forward:
        track = Var(eqn.outputs[-1].type)
        r.states[track] = states
        outs.append(track)
    return outs


def _scan_reverse(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p, shape, b = eqn.params, c.scan_shape(eqn.params), r.builder
    if ins[0] not in r.states:
        return b.replay(eqn, ins)
    types = shape.split_inputs(p["step"].in_types)
    flags = shape.split_inputs(p["active_in"])
    wanted = [
        [t for t, is_active in zip(group, own, strict=True) if is_active]
        for group, own in zip(types, flags, strict=True)
    ]
    n_consts, n_bars = len(wanted[0]), len(wanted[1])
    consts, rest = ins[1 : 1 + shape.n_consts], ins[1 + shape.n_consts :]
    xs, given = rest[: len(types[2])], rest[len(types[2]) :]
    bars: Sequence[Atom] = given[:n_bars]
    y_bars = given[n_bars:]
    program = vjp_program(p["step"], p["active_in"], p["active_out"])
    totals: list[Atom] = []
    rows: list[Sequence[Atom]] = []
    for n in reversed(range(shape.length)):
        before = [*consts, *r.states[ins[0]][n], *(_row(b, x, n) for x in xs)]
        results = r.run(program, [*before, *bars, *(_row(b, y, n) for y in y_bars)])
        terms = results[:n_consts]
        if shape.length > 1:
            terms = [ew.convert(b, t, _wide(t)) for t in terms]
        totals = [b(ew.add, s, t) for s, t in zip(totals, terms, strict=True)] if totals else terms
        bars = results[n_consts : n_consts + n_bars]
        rows.append(results[n_consts + n_bars :])
    if shape.length:
        const_bars = [ew.convert(b, s, t.dtype) for s, t in zip(totals, wanted[0], strict=True)]
    else:
        const_bars = [zeros(b, t) for t in wanted[0]]
    return [*const_bars, *bars, *_stacks(b, rows[::-1], wanted[2])]


def _wide(atom: Atom) -> np.dtype:
    """In which cotangents of constants add up over steps."""
    return np.result_type(atom.type.dtype, np.float64)  # type: ignore[union-attr]


def _row(b: Builder, stack: Atom, n: int) -> Atom:
    """Entry n of a stack of all steps."""
    assert isinstance(stack.type, ArrayType)
    length, *shape = stack.type.shape
    if length > 1:
        ones, starts = (1,) * stack.type.ndim, (n, *([0] * len(shape)))
        stack = b(ix.slice_, stack, starts=starts, steps=ones, sizes=(1, *shape))
    return b(reshape, stack, shape=tuple(shape))


def _stacks(
    b: Builder, rows: Sequence[Sequence[Atom]], types: Sequence[ArrayType]
) -> Sequence[Atom]:
    """One stack of each value of the steps."""
    if not rows:
        return [zeros(b, c.stacked(t, 0)) for t in types]
    return [_stack(b, column) for column in zip(*rows, strict=True)]


def _stack(b: Builder, values: Sequence[Atom]) -> Atom:
    parts = [_stack_of_one(b, value) for value in values]
    return parts[0] if len(parts) == 1 else b(ix.concatenate, *parts, axis=0)


def _stack_of_one(b: Builder, value: Atom) -> Atom:
    if isinstance(value, Literal):
        return full(b, value, (1,))
    return b(reshape, value, shape=(1, *value.type.shape))


_RULES: dict[str, Rule] = {
    "remat": _remat,
    "remat_tangent": _remat_tangent,
    "remat_reverse": _remat_reverse,
    "sum_of": _sum_of,
    "scan": _scan,
    "scan_forward": _scan,
    "scan_tangent": _scan_tangent,
    "scan_reverse": _scan_reverse,
}
__all__ = ["inline_calls"]
