"""Every supported ufunc against NumPy, for all dtypes, and its derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, check_derivative, run_traced

from backsweep.errors import BacksweepError
from backsweep.trace.ufuncs import SIMPLE, SPECIAL

rng = np.random.default_rng(8)
REAL = rng.uniform(0.1, 0.9, (2, 3)) * np.array([[1.0], [-1.0]])
OPERANDS: dict[str, Any] = {
    "float64": REAL,
    "float32": REAL.astype(np.float32),
    "complex128": REAL + 1j * REAL[::-1] * 0.5,
    "int64": np.array([[1, -2, 3], [-4, 5, 7]]),
    "int32": np.array([[1, -2, 3], [-4, 5, 7]], np.int32),
    "bool": REAL > 0,
}
DOMAIN = {"log": abs, "log2": abs, "log10": abs, "sqrt": abs, "arccosh": lambda x: abs(x) + 1}
DOMAIN |= {"log1p": abs, "power": abs, "float_power": abs}
KINKS = {"floor", "ceil", "sign", "trunc", "floor_divide", "heaviside", "rint"}
NAMES = [n for n in {**SIMPLE, **SPECIAL} if hasattr(np, n) and getattr(np, n).nin <= 2]


def _arguments(name: str, dtype: str) -> list[np.ndarray]:
    x = OPERANDS[dtype]
    x = np.asarray(DOMAIN.get(name, np.asarray)(x))
    y = x[::-1].copy()
    return [x] if getattr(np, name).nin == 1 else [x, y]


@pytest.mark.parametrize("dtype", OPERANDS)
@pytest.mark.parametrize("name", NAMES)
def test_against_numpy(name: str, dtype: str) -> None:
    """Equal, or refused with a sentence where NumPy would give a result; never another result."""
    arguments = _arguments(name, dtype)
    function = getattr(np, name)
    try:
        with np.errstate(all="ignore"):
            function(*arguments)
    except TypeError:
        with pytest.raises(TypeError):
            run_traced(function, arguments)
        return
    try:
        run_traced(function, arguments)
    except BacksweepError:
        assert (name, dtype) in REFUSED or dtype in ("bool", "complex128"), (name, dtype)
        return
    check(function, *arguments, ulp=32)


REFUSED = {
    (name, dtype)
    for name in ("power", "bitwise_and", "bitwise_or", "bitwise_xor", "invert", "reciprocal")
    for dtype in ("int64", "int32")
}


_LOGIC = ("bitwise_and", "bitwise_or", "bitwise_xor", "invert")
_REAL_ONLY = (
    *("less", "less_equal", "greater", "greater_equal", "maximum", "minimum", "remainder", "fabs"),
    *("expm1", "arcsin", "arccos", "arctan", "arctan2", "arcsinh", "arctanh", "hypot", "logaddexp"),
    *("deg2rad", "radians", "rad2deg", "degrees"),
)
NOT_DIFFERENTIATED = {(n, d) for n in _LOGIC for d in ("float64", "complex128")}
NOT_DIFFERENTIATED |= {(n, "complex128") for n in _REAL_ONLY}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in KINKS])
def test_derivative(name: str, dtype: str) -> None:
    arguments, function = _arguments(name, dtype), getattr(np, name)
    try:
        results = run_traced(function, arguments)
    except (BacksweepError, TypeError):
        assert (name, dtype) in NOT_DIFFERENTIATED, (name, dtype)
        return
    assert (name, dtype) not in NOT_DIFFERENTIATED
    if results[0].dtype.kind in "fc":
        check_derivative(function, *arguments, step=1e-6, tolerance=1e-6)


def test_bits_of_integers_are_refused() -> None:
    with pytest.raises(BacksweepError, match="between masks"):
        run_traced(lambda i: i & 1, [OPERANDS["int64"]])
    check(lambda u: ((u > 0) & ~(u > 1)) | (u < -1) ^ (u == 0), REAL)
