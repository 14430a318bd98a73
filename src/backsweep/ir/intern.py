"""One object for programs of one text, so that what was derived from it is found again.

A top-level call always traces again. Where the trace gives a step that is known, the
known object stands for it, and no pass runs a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakKeyDictionary

from backsweep.ir.printer import format_program
from backsweep.ir.program import Program

_texts: WeakKeyDictionary[Program, str] = WeakKeyDictionary()


def program_text(program: Program) -> str:
    """`format_program`, written once for each object."""
    text = _texts.get(program)
    if text is None:
        text = _texts[program] = format_program(program)
    return text


@dataclass(frozen=True)
class _Text:
    text: str
    lines: tuple[str, ...]
    """Where its equations come from: messages name them."""
    program: Program = field(compare=False)


@lru_cache(maxsize=128)
def _first(key: _Text) -> Program:
    return key.program


def interned(program: Program) -> Program:
    """The first program that was seen with this text, from the same lines of the user.

    Shapes, constants and order are in the text, arrays never. A program that holds other
    programs is left as it is: their parameters (a user's own objects, say) need not be. So is one
    that communicates: two communicators may have one text.
    """
    if any(e.primitive.kind in ("control", "call", "communication") for e in program.equations):
        return program
    lines = tuple(str(e.source) for e in program.equations)
    return _first(_Text(program_text(program), lines, program))
