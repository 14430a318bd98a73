"""What must have memory of its own before a program is analysed: operands, outputs."""

from __future__ import annotations

from collections.abc import Sequence

from backsweep.ir import Builder, Equation, Literal, Program, Var
from backsweep.primitives import elementwise as ew
from backsweep.primitives.access import PATCHES, is_memory_reshape, is_opaque
from backsweep.primitives.gather import is_patch
from backsweep.primitives.shape import full


def operands_in_memory(program: Program) -> Program:
    """Serial operations and scans read memory: literals among their operands are stored."""
    b = Builder()
    b.inputs = list(program.inputs)
    for eqn in program.equations:
        if eqn.primitive.name in PATCHES or is_opaque(eqn):
            stored = (full(b, a, ()) if isinstance(a, Literal) else a for a in eqn.inputs)
            eqn = eqn.replace_inputs(tuple(stored))
        b.equations.append(eqn)
    return b.build(program.outputs, program.name)


def distinct_outputs(program: Program, accumulate: Sequence[bool]) -> Program:
    """Every output a variable of its own that is no input: copies where needed."""
    b = Builder()
    b.inputs, b.equations = list(program.inputs), list(program.equations)
    taken: set[Var] = set(program.inputs)
    patched = {e.inputs[0] for e in program.equations if is_patch(e)}
    outputs = []
    for atom, adds in zip(program.outputs, accumulate, strict=True):
        if isinstance(atom, Literal):
            atom = full(b, atom, ()) if atom.type.shape == () else atom
        elif atom in taken or atom in patched or _needs_copy(program, atom, adds):
            atom = b(ew.cast, atom, dtype=atom.type.dtype)  # type: ignore[union-attr]
        outputs.append(atom)
        taken.add(atom)  # type: ignore[arg-type]
    return b.build(outputs, program.name)


def _needs_copy(program: Program, var: Var, adds: bool) -> bool:
    """Reshaped values have no memory of their own; what others read must not be a running sum."""
    return any(
        (var in e.outputs and (is_memory_reshape(e) or (adds and _cannot_add(e))))
        or (adds and var in e.inputs)
        for e in program.equations
    )


def _cannot_add(eqn: Equation) -> bool:
    """Patches, scans and collectives store their result; they cannot add it to what is there."""
    return is_patch(eqn) or eqn.primitive.kind in ("control", "communication")
