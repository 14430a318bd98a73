"""Squares of moduli, of real and of complex values, in NumPy that can be traced."""

from __future__ import annotations

from typing import Any


def product(a: Any, b: Any) -> Any:
    """Re(conj(a) b) of each element, for two arrays of one kind."""
    if a.dtype.kind == "c":
        return a.real * b.real + a.imag * b.imag
    return a * b


def squared_modulus(a: Any) -> Any:
    """|a|^2 of each element; unlike abs(a)**2 without a root, so smooth at zero."""
    return product(a, a)
