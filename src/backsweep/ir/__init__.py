"""Programs as data: types, equations, printer, verifier, reference interpreter."""

from backsweep.ir.builder import Builder
from backsweep.ir.evaluate import evaluate
from backsweep.ir.intern import interned, program_text
from backsweep.ir.printer import format_program, program_hash
from backsweep.ir.program import Atom, Equation, Literal, Primitive, Program, Source, Var
from backsweep.ir.types import ArrayType, Placement, TrajectoryType, joined_placement
from backsweep.ir.verify import verify

__all__ = [
    "ArrayType",
    "Atom",
    "Builder",
    "Equation",
    "Literal",
    "Placement",
    "Primitive",
    "Program",
    "Source",
    "TrajectoryType",
    "Var",
    "evaluate",
    "format_program",
    "interned",
    "joined_placement",
    "program_hash",
    "program_text",
    "verify",
]
