"""Checks that a program obeys the rules of the IR. Runs after every pass."""

from __future__ import annotations

from backsweep.errors import ProgramError
from backsweep.ir.program import Atom, Equation, Literal, Program, Var
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
        _check_placements(eqn, where)
        expected = eqn.primitive.result_types(eqn.params, [a.type for a in eqn.inputs])
        types = (expected,) if isinstance(expected, ArrayType) else tuple(expected)
        if len(types) != len(eqn.outputs):
            raise ProgramError(f"{where}: {len(eqn.outputs)} outputs, {len(types)} expected")
        for var, type in zip(eqn.outputs, types, strict=True):
            if isinstance(type, ArrayType) and (
                not isinstance(var.type, ArrayType)
                or not var.type.fits(type)
                or (var.type.placement is None and type.placement is not None)
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


def _check_placements(eqn: Equation, where: str) -> None:
    """What is the same on all ranks meets what is not only through `replicate`."""
    if eqn.primitive.kind == "control":  # its type rule compares with the programs it holds
        return
    types = [a.type for a in eqn.inputs if isinstance(a.type, ArrayType)]
    if eqn.primitive.takes is not None:
        wrong = {t.placement for t in types} - {None, eqn.primitive.takes}
        if wrong:
            raise ProgramError(f"{where}: takes a {eqn.primitive.takes} value, got {wrong.pop()}")
        return
    if len({t.placement for t in types if t.is_inexact} - {None}) > 1:
        raise ProgramError(f"{where}: replicated and varying values meet without a replicate")


def _check_defined(atom: Atom, defined: set[Var], where: str) -> None:
    if isinstance(atom, Literal):
        if atom.type.shape != ():
            raise ProgramError(f"{where}: a literal must be a scalar, not {atom.type}")
    elif atom not in defined:
        raise ProgramError(f"{where}: a value is used before it is defined")
