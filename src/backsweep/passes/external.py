"""Rules for a step that the user brings: reverse mode once, nothing else.

Its tangent exists only in order to be transposed. A program whose tangent would have to be run
is refused when it is made (`check_forward_mode`), not after hours of simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backsweep.ir import Builder, Equation, Program
from backsweep.passes.jvp import CONTROL_JVP
from backsweep.passes.linearize import CONTROL_TRANSPOSE
from backsweep.primitives import external as x


def _jvp_call(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    p = eqn.params
    active = tuple(d is not None for d in dots)
    out = tuple(t.is_inexact for t in p["out_types"])
    given = [d for d in dots if d is not None]
    outs = b.replay(eqn, ins)
    tangents = iter(b(x.external_tangent, *ins, *given, **p, active_in=active, active_out=out))
    return outs, [next(tangents) if is_active else None for is_active in out]


def _t_tangent(b: Builder, eqn: Equation, cts: Any, linear: Any) -> list[Any]:
    p = eqn.params
    n, supply = len(p["active_in"]), iter(cts)
    spread = [next(supply) if is_active else None for is_active in p["active_out"]]
    params = {**p, "active_out": tuple(ct is not None for ct in spread)}
    given = (ct for ct in spread if ct is not None)
    return [*[None] * n, *b(x.external_reverse, *eqn.inputs[:n], *given, **params)]


def _refuse(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    x.refuse_forward_mode(eqn.params["step"])


def check_forward_mode(program: Program) -> Program:
    """The program, unless running it would run the tangent of an external step."""
    for eqn in all_equations(program):
        if eqn.primitive is x.external_tangent:
            x.refuse_forward_mode(eqn.params["step"])
    return program


def external_steps(program: Program) -> list[str]:
    """Names of the classes of the external steps that a program calls, each once."""
    found = (e.params["step"] for e in all_equations(program) if e.primitive in _EXTERNAL)
    return list(dict.fromkeys(str(step) for step in found))


_EXTERNAL = (x.external_call, x.external_tangent, x.external_reverse)


def all_equations(program: Program) -> Iterator[Equation]:
    """Those of a program and of all programs that they hold."""
    for eqn in program.equations:
        yield eqn
        for value in eqn.params.values():
            for nested in value if isinstance(value, tuple) else (value,):
                if isinstance(nested, Program):
                    yield from all_equations(nested)


CONTROL_JVP.update(external_call=_jvp_call, external_tangent=_refuse, external_reverse=_refuse)
CONTROL_TRANSPOSE.update(external_tangent=_t_tangent)
__all__ = ["all_equations", "check_forward_mode", "external_steps"]
