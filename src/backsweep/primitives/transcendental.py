"""sin, cos, exp, expm1, log, log1p and tanh in basic operations, free of branches.

The C library's functions are calls of one scalar, which keep a loop from being vectorised.
These are expansions (see `ops`): an exact reduction of the argument, a polynomial, and
selections for what is not finite. They stay within 4 units in the last place of NumPy's; in
compiled sweeps, which flush denormals (docs/decisions/0005), a denormal result is 0.

float32 runs in float32 but for sin and cos, whose reduction needs float64.

Sources: the reductions are those of W. J. Cody and W. Waite, Software Manual for the
Elementary Functions, Prentice-Hall 1980; the forms of sin, cos, log and log1p are fdlibm's (Sun
Microsystems 1993), and so are the coefficients of sin and cos. The others are minimax
polynomials by Remez's exchange in 60 digits, rounded to the dtype; the error that stands beside
each is relative, over the whole interval, before rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from backsweep.primitives.bits import LAYOUTS

Expansion = Callable[[Any, Any, Any], Any]


def _rounder(ops: Any, x: Any) -> Any:
    return ops.const(LAYOUTS[ops.dtype(x)].rounder, x)


def _horner(ops: Any, coefficients: tuple[float, ...], z: Any) -> Any:
    result = ops.const(coefficients[-1], z)
    for c in reversed(coefficients[:-1]):
        result = ops("add", ops("mul", result, z), ops.const(c, z))
    return result


def _of_other_dtypes(numpy: Callable[..., Any]) -> Callable[[Expansion], Expansion]:
    """float16 and longdouble, which are never compiled, go to NumPy's function."""

    def decorate(expansion: Expansion) -> Expansion:
        @wraps(expansion)
        def either(ops: Any, params: Any, x: Any) -> Any:
            return expansion(ops, params, x) if ops.dtype(x) in LAYOUTS else numpy(x)

        return either

    return decorate


# --------------------------------------------------------------------------- sin and cos

_TWO_OVER_PI = 6.36619772367581382433e-01
_PI_2 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
"""Parts of pi/2 with 33, 33 and 53 bits."""
_SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
_COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)


def _sin_cos(ops: Any, x: Any, shift: float) -> Any:
    """sin(x + shift pi/2), in float64 whatever the dtype of x."""
    dtype = ops.dtype(x)
    x = ops.cast(np.float64, x)
    n = ops("mul", x, ops.const(_TWO_OVER_PI, x))
    n = ops("sub", ops("add", n, _rounder(ops, x)), _rounder(ops, x))
    r = x
    for part in _PI_2:
        r = ops("sub", r, ops("mul", n, ops.const(part, x)))
    r, n = ops("far_rest", x, r), ops("far_turns", x, n)
    z = ops("mul", r, r)
    sine = ops("add", r, ops("mul", ops("mul", r, z), _horner(ops, _SIN, z)))
    half_z = ops("mul", ops.const(0.5, z), z)
    tail = ops("mul", ops("mul", z, z), _horner(ops, _COS, z))
    cosine = ops("add", ops("sub", ops.const(1, z), half_z), tail)
    q = ops("add", n, ops.const(shift, n)) if shift else n
    quarter = ops("floor", ops("mul", q, ops.const(0.25, q)))
    q = ops("sub", q, ops("mul", ops.const(4, q), quarter))
    odd = ops("logical_or", ops("eq", q, ops.const(1, q)), ops("eq", q, ops.const(3, q)))
    value = ops("select", odd, cosine, sine)
    return ops.cast(dtype, ops("select", ops("ge", q, ops.const(2, q)), ops("neg", value), value))


def sin(ops: Any, params: Any, x: Any) -> Any:
    return _sin_cos(ops, x, 0.0)


def cos(ops: Any, params: Any, x: Any) -> Any:
    return _sin_cos(ops, x, 1.0)


# --------------------------------------------------------------------------- exp

_LOG2_E = 1.4426950408889634
_LN_2 = {
    np.dtype(np.float64): (0.6931471803691238, 1.9082149292705877e-10),
    np.dtype(np.float32): (0.693115234375, 3.1946184945309415e-05),
}
"""Parts of log(2); the first has 32 or 12 bits, so that its products with exponents are exact."""

_EXP = {
    np.dtype(np.float64): (
        0.5,
        0.1666666666666667,
        0.041666666666666685,
        0.008333333333326134,
        0.0013888888888874396,
        0.00019841269874821957,
        2.4801587347346783e-05,
        2.755725539874195e-06,
        2.7557252905997574e-07,
        2.5105217543350842e-08,
        2.0921591355558057e-09,
    ),  # 2**-60
    np.dtype(np.float32): (
        0.5,
        0.16666576266288757,
        0.04166637361049652,
        0.008363180793821812,
        0.0013941123615950346,
    ),  # 2**-25
}
"""(e**r - 1 - r) / r**2 for |r| <= log(2) / 2."""

_EXP_RANGE = {np.dtype(np.float64): (-760.0, 720.0), np.dtype(np.float32): (-110.0, 90.0)}
_EXPM1_RANGE = {np.dtype(np.float64): (-50.0, 710.0), np.dtype(np.float32): (-30.0, 89.0)}
"""Beyond these the result is 0 or -1, or infinity, like that at the bound."""


def _clamped(ops: Any, x: Any, bounds: tuple[float, float]) -> Any:
    """NaN stays NaN."""
    low, high = (ops.const(bound, x) for bound in bounds)
    x = ops("select", ops("lt", x, low), low, x)
    return ops("select", ops("gt", x, high), high, x)


def _exp_parts(ops: Any, x: Any) -> tuple[Any, Any]:
    """n and e**r - 1 of x = n log(2) + r."""
    high, low = _LN_2[ops.dtype(x)]
    n = ops("add", ops("mul", x, ops.const(_LOG2_E, x)), _rounder(ops, x))
    n = ops("sub", n, _rounder(ops, x))
    r = ops("sub", x, ops("mul", n, ops.const(high, x)))
    r = ops("sub", r, ops("mul", n, ops.const(low, x)))
    tail = ops("mul", ops("mul", r, r), _horner(ops, _EXP[ops.dtype(x)], r))
    return n, ops("add", r, tail)


@_of_other_dtypes(np.exp)
def exp(ops: Any, params: Any, x: Any) -> Any:
    """2**n e**r, with 2**n in two factors: the result may be denormal or overflow."""
    n, less_one = _exp_parts(ops, _clamped(ops, x, _EXP_RANGE[ops.dtype(x)]))
    rounder = _rounder(ops, x)
    half = ops("add", ops("mul", n, ops.const(0.5, n)), rounder)
    other = ops("add", ops("sub", n, ops("sub", half, rounder)), rounder)
    value = ops("add", less_one, ops.const(1, less_one))
    value = ops("mul", value, ops("power_of_two", half))
    return ops("mul", value, ops("power_of_two", other))


def _expm1(ops: Any, x: Any, bounds: tuple[float, float]) -> Any:
    """2 (2**(n-1) (e**r - 1) + (2**(n-1) - 1/2)): 2**n itself may overflow too early.

    It is x where that is below the last bit of 1: else half of the smallest would be flushed.
    """
    n, less_one = _exp_parts(ops, _clamped(ops, x, bounds))
    half = ops.const(0.5, n)
    scale = ops("power_of_two", ops("add", ops("sub", n, ops.const(1, n)), _rounder(ops, n)))
    value = ops("add", ops("mul", scale, less_one), ops("sub", scale, half))
    tiny = ops("lt", ops("abs", x), ops.const(2.0**-60, x))
    return ops("select", tiny, x, ops("add", value, value))


@_of_other_dtypes(np.expm1)
def expm1(ops: Any, params: Any, x: Any) -> Any:
    return _expm1(ops, x, _EXPM1_RANGE[ops.dtype(x)])


@_of_other_dtypes(np.tanh)
def tanh(ops: Any, params: Any, x: Any) -> Any:
    """-t / (2 + t) with t = expm1(-2 |x|), and the sign of x."""
    size = ops("abs", x)
    low, _ = _EXPM1_RANGE[ops.dtype(x)]
    t = _expm1(ops, ops("mul", ops.const(-2, size), size), (low, 0.0))
    value = ops("div", ops("neg", t), ops("add", t, ops.const(2, t)))
    return ops("select", ops("lt", x, ops.const(0, x)), ops("neg", value), value)


# --------------------------------------------------------------------------- log

_LOG = {
    np.dtype(np.float64): (
        0.666666666666667,
        0.39999999999897884,
        0.2857142862665214,
        0.22222211031676706,
        0.18182896210630037,
        0.15331497716548545,
        0.14619097141730655,
    ),  # 2**-57
    np.dtype(np.float32): (
        0.6666668653488159,
        0.39988696575164795,
        0.2958308756351471,
    ),  # 2**-28
}
"""(log((1 + s) / (1 - s)) - 2 s) / s**3 as a function of s**2, for factors of at most sqrt(2)."""

_SMALLEST_NORMAL = {np.dtype(np.float64): 2.0**-1022, np.dtype(np.float32): 2.0**-126}
_RAISE = {np.dtype(np.float64): 54, np.dtype(np.float32): 25}
"""Powers of two that turn denormals into normal numbers."""


def _log_of(ops: Any, k: Any, m: Any, correction: Any = None) -> Any:
    """log(2**k m), plus a small correction."""
    f = ops("sub", m, ops.const(1, m))
    s = ops("div", f, ops("add", f, ops.const(2, f)))
    z = ops("mul", s, s)
    half_square = ops("mul", ops("mul", f, ops.const(0.5, f)), f)
    tail = ops("mul", z, _horner(ops, _LOG[ops.dtype(m)], z))
    tail = ops("mul", s, ops("add", half_square, tail))
    high, low = _LN_2[ops.dtype(m)]
    small = ops("mul", k, ops.const(low, k))
    small = small if correction is None else ops("add", small, correction)
    rest = ops("sub", half_square, ops("add", tail, small))
    return ops("sub", ops("mul", k, ops.const(high, k)), ops("sub", rest, f))


def _outside(ops: Any, x: Any, value: Any) -> Any:
    """-inf at 0, NaN below, and x where it is infinite or NaN."""
    zero, infinity = ops.const(0, x), ops.const(np.inf, x)
    value = ops("select", ops("lt", x, infinity), value, x)
    value = ops("select", ops("eq", x, zero), ops.const(-np.inf, x), value)
    return ops("select", ops("lt", x, zero), ops.const(np.nan, x), value)


@_of_other_dtypes(np.log)
def log(ops: Any, params: Any, x: Any) -> Any:
    raised = _RAISE[ops.dtype(x)]
    is_small = ops("lt", x, ops.const(_SMALLEST_NORMAL[ops.dtype(x)], x))
    normal = ops("select", is_small, ops("mul", x, ops.const(2.0**raised, x)), x)
    down = ops("select", is_small, ops.const(raised, x), ops.const(0, x))
    k = ops("sub", ops("exponent", normal), down)
    return _outside(ops, x, _log_of(ops, k, ops("mantissa", normal)))


@_of_other_dtypes(np.log1p)
def log1p(ops: Any, params: Any, x: Any) -> Any:
    """log(u) with u = 1 + x rounded, plus what rounding took away, divided by u."""
    one = ops.const(1, x)
    u = ops("add", x, one)
    added = ops("sub", u, one)
    lost = ops("add", ops("sub", one, ops("sub", u, added)), ops("sub", x, added))
    value = _log_of(ops, ops("exponent", u), ops("mantissa", u), ops("div", lost, u))
    return _outside(ops, u, value)


# --------------------------------------------------------------------------- roots

_NEWTON_STEPS = {8: 2, 4: 1}
"""By bytes: from 3.5 % to 5e-6 and 2e-3; what is left is a third-order correction."""


def inverse_root_power(ops: Any, x: Any, k: int) -> Any:
    """x**(-k/2) for odd k > 1, without a root or a division, within 4 ulp.

    y is 1/sqrt(x) roughly, with so few digits that y y is exact; with d = 1 - x y y the result is
    y**k (1 - d)**(-k/2), whose series is taken to d**3. (1/sqrt(x) itself is not made so: y y
    underflows where x is nearly the largest number; other powers have underflowed before.)
    """
    info = np.finfo(ops.dtype(x))
    tiny, largest = ops.const(info.tiny, x), ops.const(info.max, x)
    bounded = ops("select", ops("gt", x, largest), largest, x)
    y, half_x = ops("root_guess", bounded), ops("mul", ops.const(0.5, x), bounded)
    for _ in range(_NEWTON_STEPS[info.dtype.itemsize]):
        square = ops("mul", ops("mul", half_x, y), y)
        y = ops("mul", y, ops("sub", ops.const(1.5, x), square))
    y = ops("upper_half", y)
    square = ops("mul", y, y)
    d = ops("sub", ops.const(1, x), ops("mul", bounded, square))
    series = (k / 2, k * (k + 2) / 8, k * (k + 2) * (k + 4) / 48)
    power = y
    for _ in range(k // 2):
        power = ops("mul", power, square)
    result = ops("add", power, ops("mul", power, ops("mul", d, _horner(ops, series, d))))
    is_negative = ops("lt", x, ops.const(0, x))
    edge = ops("select", is_negative, ops.const(np.nan, x), ops.const(np.inf, x))
    return ops("select", ops("lt", x, tiny), edge, result)
