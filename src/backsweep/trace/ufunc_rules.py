"""Ufuncs that are written in terms of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Atom, Literal
from backsweep.primitives import elementwise as ew
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, wrap
from backsweep.trace.tracing import require_trace, trace_error
from backsweep.trace.ufuncs import (
    COMPLEX_RULES,
    SPECIAL,
    _cast,
    apply,
    as_mask,
    elementwise,
    promote,
)


def _kind(atom: Atom) -> str:
    assert isinstance(atom.type, ArrayType)
    return atom.type.dtype.kind


def _absolute(x: Atom) -> TracedArray:
    if _kind(x) == "c":
        return elementwise(ew.complex_abs, [x])
    if _kind(x) == "b":
        return wrap(x)
    return elementwise(ew.abs_, [x], x.type.weak)  # type: ignore[union-attr]


def _fabs(x: Atom) -> TracedArray:
    return _absolute(promote(np.fabs, [x])[0][0])


# --------------------------------------------------------------------------- powers


def _power(x: Atom, y: Atom) -> TracedArray:
    (x, y), weak = promote(np.power, [x, y])
    is_plain = isinstance(y, Literal) and complex(y.value).imag == 0
    if _kind(x) == "c":
        if is_plain:
            return _complex_power(x, complex(y.value).real)  # type: ignore[union-attr]
        return apply(np.exp, apply(np.multiply, wrap(y), apply(np.log, wrap(x))))
    if _kind(x) in "iu":
        return _integer_power(x, y)
    if not is_plain:
        return elementwise(ew.pow_, [x, y], weak)
    builder = require_trace().builder
    out = ew.power_of(builder, x, float(y.value))  # type: ignore[union-attr]
    if isinstance(out, Literal) and x.type.shape:
        out = sh.full(builder, out, x.type.shape)
    return wrap(out)


def _complex_power(x: Atom, exponent: float) -> TracedArray:
    if exponent == int(exponent) and 0 < exponent <= 8:
        result = wrap(x)
        for _ in range(int(exponent) - 1):
            result = apply(np.multiply, result, wrap(x))
        return result
    return apply(np.exp, apply(np.multiply, exponent, apply(np.log, wrap(x))))


def _integer_power(x: Atom, y: Atom) -> TracedArray:
    if not isinstance(y, Literal) or not 0 <= int(y.value) <= 64:
        raise trace_error(
            "an integer to a power that is traced or negative is not supported: use a float base"
        )
    result = apply(np.add, apply(np.multiply, wrap(x), 0), 1)
    for _ in range(int(y.value)):
        result = apply(np.multiply, result, wrap(x))
    return result


def _float_power(x: Atom, y: Atom) -> TracedArray:
    """Always in double precision."""
    dtype = np.dtype(np.complex128 if "c" in (_kind(x), _kind(y)) else np.float64)
    emit = require_trace().emit
    return _power(_cast(emit, x, dtype), _cast(emit, y, dtype))


# --------------------------------------------------------------------------- masks


def _logical(primitive: Any) -> Callable[..., TracedArray]:
    def rule(*atoms: Atom) -> TracedArray:
        return elementwise(primitive, [as_mask(a) for a in atoms])

    return rule


def _of_masks(primitive: Any) -> Callable[..., TracedArray]:
    """& | ^ ~ as NumPy has them on booleans; the bits of integers are not supported."""
    rule = _logical(primitive)

    def checked(*atoms: Atom) -> TracedArray:
        if any(_kind(a) != "b" for a in atoms):
            raise trace_error(
                "& | ^ ~ are supported between masks, not on numbers: write comparisons, "
                "(a > 0) & (b > 0)"
            )
        return rule(*atoms)

    return checked


def _isfinite(x: Any) -> Any:
    return x == x if x.dtype.kind in "biu" else (x - x) == (x - x)


# --------------------------------------------------------------------------- compositions


def _composed(name: str, function: Callable[..., Any]) -> Callable[..., TracedArray]:
    """Operands in the dtypes of NumPy's loop, then a function of handles."""

    def rule(*atoms: Atom) -> TracedArray:
        promoted, weak = promote(getattr(np, name), list(atoms))
        return function(*(wrap(a) for a in (atoms if weak else promoted)))

    return rule


def _reciprocal(x: Any) -> Any:
    if x.dtype.kind in "biu":
        raise trace_error("np.reciprocal of integers is not supported: use 1 / x")
    return 1.0 / x


def _remainder(x: Any, y: Any) -> Any:
    if x.dtype.kind in "biu":
        return np.where(y == 0, y, x - x // y * y)
    return elementwise(ew.remainder, [x._read(), y._read()])


def _logaddexp(x: Any, y: Any) -> Any:
    return np.maximum(x, y) + np.log1p(np.exp(-abs(x - y)))


_COMPOSED: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "reciprocal": _reciprocal,
    "positive": lambda x: x,
    "remainder": _remainder,
    "hypot": lambda x, y: np.sqrt(x * x + y * y),
    "logaddexp": _logaddexp,
    "exp2": lambda x: np.exp(x * float(np.log(2.0))),
    "log2": lambda x: np.log(x) * float(1.0 / np.log(2.0)),
    "log10": lambda x: np.log(x) * float(1.0 / np.log(10.0)),
    "deg2rad": lambda x: x * float(np.pi / 180.0),
    "radians": lambda x: x * float(np.pi / 180.0),
    "rad2deg": lambda x: x * float(180.0 / np.pi),
    "degrees": lambda x: x * float(180.0 / np.pi),
    "heaviside": lambda x, h: np.where(x < 0, 0.0, np.where(x > 0, 1.0, np.where(x == 0, h, x))),
    "isnan": lambda x: x != x,
    "isfinite": _isfinite,
    "isinf": lambda x: (x == x) & ~_isfinite(x),
    "trunc": lambda x: np.where(x < 0, np.ceil(x), np.floor(x)),
}

SPECIAL.update(
    {
        "absolute": _absolute,
        "fabs": _fabs,
        "power": _power,
        "float_power": _float_power,
        "logical_and": _logical(ew.logical_and),
        "logical_or": _logical(ew.logical_or),
        "logical_xor": _logical(ew.logical_xor),
        "logical_not": _logical(ew.logical_not),
        "bitwise_and": _of_masks(ew.logical_and),
        "bitwise_or": _of_masks(ew.logical_or),
        "bitwise_xor": _of_masks(ew.logical_xor),
        "invert": _of_masks(ew.logical_not),
        **{name: _composed(name, function) for name, function in _COMPOSED.items()},
    }
)

# --------------------------------------------------------------------------- complex functions


def _from_parts(function: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., TracedArray]:
    def rule(z: Atom) -> TracedArray:
        re, im = function(wrap(z).real, wrap(z).imag)
        return elementwise(ew.complex_, [re._read(), im._read()])

    return rule


_sin = _from_parts(lambda x, y: (np.sin(x) * np.cosh(y), np.cos(x) * np.sinh(y)))
_cos = _from_parts(lambda x, y: (np.cos(x) * np.cosh(y), -np.sin(x) * np.sinh(y)))
_sinh = _from_parts(lambda x, y: (np.sinh(x) * np.cos(y), np.cosh(x) * np.sin(y)))
_cosh = _from_parts(lambda x, y: (np.cosh(x) * np.cos(y), np.sinh(x) * np.sin(y)))

COMPLEX_RULES.update(
    {
        "sin": _sin,
        "cos": _cos,
        "tan": lambda z: apply(np.divide, _sin(z), _cos(z)),
        "sinh": _sinh,
        "cosh": _cosh,
        "tanh": lambda z: apply(np.divide, _sinh(z), _cosh(z)),
    }
)
