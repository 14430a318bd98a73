"""Where the values of a whole program belong, and which of them are added up over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from backsweep.ir import ArrayType, Atom, Equation, Literal, Program, Var
from backsweep.passes.partition.placement import (
    EXTREMA,
    MOVES,
    NeedsSum,
    Placed,
    Placement,
    nowhere,
    place,
)
from backsweep.primitives.gather import scatter_add
from backsweep.primitives.shape import broadcast


def smallest_before(program: Program, var: Var, placements: dict[Var, Placement]) -> Var:
    """Of a partial value and those that it was made of by moving alone: the smallest."""
    makers = {v: e for e in program.equations for v in e.outputs}
    best = var
    while (eqn := makers.get(var)) is not None and eqn.primitive.name in MOVES - {"sum"}:
        source = eqn.inputs[0]
        if isinstance(source, Literal) or not placements[source].is_partial:
            break
        var = source
        if _nbytes(var) < _nbytes(best):
            best = var
    return best


def _nbytes(var: Var) -> int:
    return var.type.nbytes if isinstance(var.type, ArrayType) else 0


Several = Callable[[Equation, "Placed"], "list[Placement]"]
"""Rule of an equation that holds programs."""


def place_program(
    program: Program,
    inputs: Sequence[Placement],
    whole_outputs: Sequence[bool],
    held: Several,
) -> Placed:
    """Where the values of a program belong.

    Parameters
    ----------
    program : Program
    inputs : sequence of Placement
    whole_outputs : sequence of bool
        Outputs that must not be partial.
    held : callable
        Placements of the outputs of an equation that holds programs.
    """
    sums: set[Var] = set()
    zeros = {
        e.outputs[0]
        for e in program.equations
        if e.primitive is broadcast and isinstance(e.inputs[0], Literal) and not e.inputs[0].value
    }
    while True:
        placed = Placed(dict(zip(program.inputs, inputs, strict=True)), {})
        try:
            for eqn in program.equations:
                _enter(eqn, placed, sums, zeros, held)
            for atom, is_whole in zip(program.outputs, whole_outputs, strict=True):
                if is_whole and isinstance(atom, Var) and placed.seen[atom].is_partial:
                    raise NeedsSum(atom)
        except NeedsSum as need:
            sums.add(smallest_before(program, need.var, placed.seen))
            continue
        return placed


def _enter(eqn: Equation, placed: Placed, sums: set[Var], zeros: set[Var], held: Several) -> None:
    if eqn.primitive.kind == "control":
        results = held(eqn, placed)
    else:
        operands = [placed.of(a) for a in eqn.inputs]
        if eqn.primitive is scatter_add and eqn.inputs[0] in zeros:
            # Zeros are the sum of zeros: to them the ranks' parts of a value may be added.
            operands[0] = replace(operands[0], is_partial=operands[1].is_partial)
        results = [place(eqn, operands)]
    for var, result in zip(eqn.outputs, results, strict=True):
        if result.is_partial and (var in sums or eqn.primitive.name in EXTREMA):
            placed.parts[var] = result
            result = nowhere(var.type)
        placed.seen[var] = result


def known_value(
    atom: Atom, makers: dict[Var, Equation], values: dict[Var, np.ndarray]
) -> np.ndarray | None:
    """The value of an index that does not depend on anything but given arrays."""
    if isinstance(atom, Literal):
        return np.asarray(atom.value)
    if atom not in values and atom in makers:
        eqn = makers[atom]
        if eqn.primitive.kind in ("control", "call"):
            return None
        inputs = [known_value(a, makers, values) for a in eqn.inputs]
        if any(v is None for v in inputs):
            return None
        result = eqn.primitive.evaluate(eqn.params, *inputs)
        if len(eqn.outputs) > 1:
            return None
        values[atom] = np.asarray(result)
    return values.get(atom)
