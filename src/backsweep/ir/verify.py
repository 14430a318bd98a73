"""Checks that a program obeys the rules of the IR. Runs after every pass."""

from __future__ import annotations

from backsweep.errors import ProgramError
from backsweep.ir.program import Atom, Literal, Program, Var
from backsweep.ir.types import ArrayType


def verify(program: Program) -> Program:
    """Return the program, or raise ProgramError naming the first equation that is wrong."""
    defined: set[Var] = set()
    for var in program.inputs:
        if var in defined:
            raise ProgramError(f"{program.name}: an input stands twice")
        defined.add(var)
    for position, eqn in enumerate(program.equations):
        where = f"{program.name}, equation {position} ({eqn.primitive.name})"
        for atom in eqn.inputs:
            _check_defined(atom, defined, where)
        expected = eqn.primitive.type_rule(eqn.params, *(a.type for a in eqn.inputs))
        types = (expected,) if isinstance(expected, ArrayType) else tuple(expected)
        if len(types) != len(eqn.outputs):
            raise ProgramError(f"{where}: {len(eqn.outputs)} outputs, {len(types)} expected")
        for var, type in zip(eqn.outputs, types, strict=True):
            if isinstance(type, ArrayType) and (
                not isinstance(var.type, ArrayType)
                or (var.type.shape, var.type.dtype) != (type.shape, type.dtype)
            ):
                raise ProgramError(f"{where}: an output is {var.type}, {type} expected")
            if var in defined:
                raise ProgramError(f"{where}: an output is assigned twice")
            defined.add(var)
    for atom in program.outputs:
        _check_defined(atom, defined, f"{program.name}, outputs")
    for nested in program.nested():
        verify(nested)
    return program


def _check_defined(atom: Atom, defined: set[Var], where: str) -> None:
    if isinstance(atom, Literal):
        if atom.type.shape != ():
            raise ProgramError(f"{where}: a literal must be a scalar, not {atom.type}")
    elif atom not in defined:
        raise ProgramError(f"{where}: a value is used before it is defined")
