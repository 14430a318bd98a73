"""Programs as stable text: names by order of first use, no ids, no set order."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from backsweep.ir.program import Atom, Literal, Program, Var


def _names() -> itertools.chain[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return itertools.chain(
        letters, (a + b for n in itertools.count(1) for a in [""] for b in [f"v{n}"])
    )


def format_program(program: Program, indent: str = "") -> str:
    """The text of a program, nested programs included."""
    supply = _names()
    names: dict[Var, str] = {}

    def name(var: Var) -> str:
        if var not in names:
            names[var] = next(supply)
        return names[var]

    def atom(a: Atom) -> str:
        if isinstance(a, Literal):
            return f"{a.value.item()!r}"
        return name(a)

    def result(a: Atom) -> str:
        return f"{atom(a)}:{a.type}" if isinstance(a, Literal) else atom(a)

    def typed(var: Var) -> str:
        hint = f"  # {var.name}" if var.name else ""
        return f"{name(var)}:{var.type}{hint}"

    lines = [f"{indent}{program.name}("]
    lines += [f"{indent}    {typed(v)}" for v in program.inputs]
    lines.append(f"{indent}) {{")
    for eqn in program.equations:
        inputs = " ".join(atom(a) for a in eqn.inputs)
        left = " ".join(f"{name(v)}:{v.type}" for v in eqn.outputs)
        params = [(k, v) for k, v in sorted(eqn.params.items()) if not isinstance(v, Program)]
        shown = "".join(f" {k}={format_param(v)}" for k, v in params)
        lines.append(f"{indent}    {left} = {eqn.primitive.name}[{shown.strip()}] {inputs}")
        for key, value in sorted(eqn.params.items()):
            if isinstance(value, Program):
                lines.append(f"{indent}      {key} =")
                lines.append(format_program(value, indent + "        "))
    lines.append(f"{indent}    return {' '.join(result(a) for a in program.outputs)}")
    lines.append(f"{indent}}}")
    return "\n".join(lines)


def format_param(value: Any) -> str:
    """One parameter as text without spaces that depend on its type."""
    if isinstance(value, tuple):
        return "(" + ",".join(format_param(v) for v in value) + ")"
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, slice):
        return f"{value.start}:{value.stop}:{value.step}"
    return str(value)


def program_hash(program: Program) -> str:
    """Hexadecimal digest of a program's text: equal programs, equal digests."""
    return hashlib.sha256(format_program(program).encode()).hexdigest()[:32]
