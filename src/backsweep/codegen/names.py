"""Names in generated code: the user's where they do not collide with its own."""

from __future__ import annotations

import builtins
import keyword
import re

_OWN = """
math np float32 float64 int32 int64 view f32 f64 i32 i64 u8 fold_f32 fold_f64 U P32 P64 lo hi
scratch block at at_block best row v k arguments_are_disjoint
exponent_of far_rest far_turns mantissa_of power_of_two root_guess upper_half
"""
RESERVED = {*dir(builtins), *_OWN.split()}

TEMPORARY = re.compile(
    r"([tris]|p32_|p64_|total|[bj]_)[0-9_]*|[bj]_(lo|hi)|(ZERO|ONE|MINUS)_f[48]|u8_[01]"
)
"""Shapes of the names of scalars, indices and constants."""


def safe_name(hint: str, otherwise: str) -> str:
    """An identifier for a buffer."""
    if not hint.isidentifier():
        return otherwise
    if keyword.iskeyword(hint) or hint in RESERVED or TEMPORARY.fullmatch(hint):
        return f"user_{hint}"
    return hint
