"""What misfits, unknowns and regularisation need of arrays, in NumPy that can be traced."""

from __future__ import annotations

from typing import Any

import numpy as np


def product(a: Any, b: Any) -> Any:
    """Re(conj(a) b) of each element, for two arrays of one dtype."""
    if a.dtype.kind == "c":
        return a.real * b.real + a.imag * b.imag
    return a * b


def squared_modulus(a: Any) -> Any:
    """|a|^2 of each element; unlike abs(a)**2 without a root, so smooth at zero."""
    return product(a, a)


def fits_into(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array can be broadcast to a shape."""
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def wide(value: Any) -> np.ndarray:
    """In double precision, real or complex."""
    array = np.asarray(value)
    return array.astype(np.result_type(array.dtype, np.float64))
