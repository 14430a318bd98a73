"""x / s**1.5 becomes x * s**-1.5, which needs neither a root nor a division.

The quotient's last bits change, so this is done once, when a program has just been traced:
what is derived from it, evaluated or compiled, then starts from the same product.
"""

from __future__ import annotations

from backsweep.ir import Builder, Equation, Program, Var
from backsweep.primitives import elementwise as ew
from backsweep.primitives.ops import INVERSE_ROOT_EXPONENTS


def multiply_by_inverse_powers(program: Program) -> Program:
    """Replace divisions by half-integer powers."""
    powers = {
        e.outputs[0]: e
        for e in program.equations
        if e.primitive is ew.power and -e.params["exponent"] in INVERSE_ROOT_EXPONENTS
    }
    if not powers:
        return program
    equations: list[Equation] = []
    for eqn in program.equations:
        below = eqn.inputs[1] if eqn.primitive is ew.div else None
        if not isinstance(below, Var) or below not in powers:
            equations.append(eqn)
            continue
        power = powers[below]
        b = Builder()
        b.source = eqn.source
        inverse = b(ew.power, power.inputs[0], exponent=-power.params["exponent"])
        product = Equation(ew.mul, (eqn.inputs[0], inverse), {}, eqn.outputs, eqn.source)
        equations += [*b.equations, product]
    return Program(program.inputs, tuple(equations), program.outputs, program.name)
