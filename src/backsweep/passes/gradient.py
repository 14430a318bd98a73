"""Whole programs of derivatives: value and gradient, cotangents of all inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backsweep.ir import Atom, Builder, Program, verify
from backsweep.ir.builder import scalar
from backsweep.passes.jvp import instantiate
from backsweep.passes.linearize import Linearized, linearize, transpose_equations
from backsweep.passes.simplify import simplify


def value_and_grad_program(program: Program, active: Sequence[bool]) -> Program:
    """inputs -> (outputs, gradients of the first output)."""
    parts, b = linearize(program, active), Builder()
    results = b.inline(parts.primal, tuple(b.input(v.type, v.name) for v in program.inputs))
    one = scalar(1, results[0])
    cts = [one if k == 0 else None for k, a in enumerate(parts.active_out) if a]
    if not parts.active_out[0]:
        cts = [None] * len(cts)
    bars = _bars(b, parts, results, cts)
    outputs = [*results[: parts.n_outputs], *bars]
    return verify(simplify(b.build(outputs, f"value_and_grad_{program.name}")))


def cotangent_program(program: Program, active: Sequence[bool]) -> Program:
    """(inputs, cotangents of the inexact outputs) -> cotangents of the active inputs."""
    parts, b = linearize(program, active), Builder()
    results = b.inline(parts.primal, tuple(b.input(v.type, v.name) for v in program.inputs))
    types: Any = program.out_types
    given = [b.input(t, "bar") if t.is_inexact else None for t in types]
    cts = [ct for ct, a in zip(given, parts.active_out, strict=True) if a]
    return verify(simplify(b.build(_bars(b, parts, results, cts), f"vjp_{program.name}")))


def _bars(b: Builder, parts: Linearized, results: Sequence[Atom], cts: Sequence[Any]) -> list[Atom]:
    found = transpose_equations(b, parts.tangent, results[parts.n_outputs :], list(cts))
    return [instantiate(b, bar, bar.type) for bar in found]
