"""Passes: each takes a program and returns one."""

from backsweep.passes import control
from backsweep.passes.external import check_forward_mode
from backsweep.passes.jvp import jvp_program
from backsweep.passes.linearize import Linearized, linearize, transpose, vjp_program
from backsweep.passes.simplify import simplify

__all__ = [
    "Linearized",
    "check_forward_mode",
    "control",
    "jvp_program",
    "linearize",
    "simplify",
    "transpose",
    "vjp_program",
]
