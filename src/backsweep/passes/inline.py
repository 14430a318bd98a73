"""Before lowering: what a step calls becomes part of it.

* `remat`, its tangent and its reverse become equations: a step that is reversed from its
  state computes its values again anyway;
* a sum over items becomes equations, in the order of its tree;
* the tangent of a scan becomes the scan of its JVP;
* a scan of no step or of one (`jit`) is no loop.

What stays are scans of two steps and more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backsweep.ir import Atom, Builder, Equation, Literal, Program, Var
from backsweep.ir.builder import look_up
from backsweep.passes.control import jvp_step
from backsweep.passes.jvp import jvp_program
from backsweep.passes.linearize import vjp_program
from backsweep.primitives import control as c
from backsweep.primitives import elementwise as ew
from backsweep.primitives.shape import full, reshape, zeros


def inline_calls(program: Program) -> Program:
    """An equivalent program whose only control equations are scans of several steps."""
    if not any(e.primitive.kind == "control" for e in program.equations):
        return program
    inliner = _Inliner()
    b = inliner.builder
    arguments = [b.input(v.type, v.name) for v in program.inputs]
    return b.build(inliner.run(program, arguments), program.name)


class _Inliner:
    """Appends programs to one builder."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.starts: dict[Var, Sequence[Atom]] = {}
        """Inputs of the short scans, by their trajectory."""

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
    if shape.length > 1:
        return b.replay(eqn, ins)
    consts, init, xs = shape.split_inputs(ins)
    if shape.length == 0:
        ys = [zeros(b, c.stacked(t, 0)) for t in shape.split_outputs(p["step"].out_types)[1]]
        outs = [*init, *ys]
    else:
        results = r.run(p["step"], [*consts, *init, *(_only(b, x) for x in xs)])
        carry, records = shape.split_outputs(results)
        outs = [*carry, *(_stack_of_one(b, y) for y in records)]
    if eqn.primitive is c.scan_forward:
        track = Var(eqn.outputs[-1].type)
        r.starts[track] = init
        outs.append(track)
    return outs


def _scan_reverse(r: _Inliner, eqn: Equation, ins: tuple[Any, ...]) -> Sequence[Atom]:
    p, shape, b = eqn.params, c.scan_shape(eqn.params), r.builder
    if shape.length > 1:
        return b.replay(eqn, ins)
    types = shape.split_inputs(p["step"].in_types)
    flags = shape.split_inputs(p["active_in"])
    n_xs = len(types[2])
    consts, rest = ins[1 : 1 + shape.n_consts], ins[1 + shape.n_consts :]
    xs, bars = rest[:n_xs], rest[n_xs:]
    n_bars = sum(p["active_out"][: shape.n_carry])
    if shape.length == 0:
        const_bars = [zeros(b, t) for t, wanted in zip(types[0], flags[0], strict=True) if wanted]
        x_bars = [
            zeros(b, c.stacked(t, 0))
            for t, wanted in zip(types[2], flags[2], strict=True)
            if wanted
        ]
        return [*const_bars, *bars[:n_bars], *x_bars]
    program = vjp_program(p["step"], p["active_in"], p["active_out"])
    given = [*consts, *r.starts[ins[0]], *(_only(b, x) for x in xs), *bars[:n_bars]]
    results = r.run(program, [*given, *(_only(b, y) for y in bars[n_bars:])])
    n = sum(flags[0]) + sum(flags[1])
    return [*results[:n], *(_stack_of_one(b, x) for x in results[n:])]


def _only(b: Builder, stack: Atom) -> Atom:
    return b(reshape, stack, shape=stack.type.shape[1:])


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
