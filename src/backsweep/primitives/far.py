"""Reduction of huge angles modulo pi/2, in integers: what sin and cos do beyond `LIMIT`.

The plain arithmetic of `transcendental.sin` reduces exactly up to 2**20 quarter turns. Beyond,
Payne and Hanek's method: of the binary digits of 2/pi only a window matters, because digits
before it give whole turns and digits behind it are below the last bit of the result. It is some
ten times as slow as the plain reduction and made for the few arguments that need it.

References
----------
M. Payne and R. Hanek, Radian reduction for trigonometric functions, ACM SIGNUM Newsletter
18(1), 1983, 19-24, doi:10.1145/1057600.1057602.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LIMIT = 1.0e6
"""|x| (rad) up to which the plain reduction is exact."""

_U = np.uint64
_DIGITS = (
    0, 0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB,
    0xDEBBC561, 0xB7246E3A, 0x424DD2E0, 0x06492EEA, 0x09D1921C, 0xFE1DEB1C, 0xB129A73E, 0xE88235F5,
    0x2EBB4484, 0xE99C7026, 0xB45F7E41, 0x3991D639, 0x835339F4, 0x9C845F8B, 0xBDF9283B, 0x1FF897FF,
    0xDE05980F, 0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66, 0x9E5FEA2D, 0x7527BAC7,
    0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08, 0x56033046, 0xFC7B6BAB, 0xF0CFBC20,
)  # fmt: skip
TWO_OVER_PI = np.array(_DIGITS, np.uint64)
"""The binary digits of 2/pi, 32 in each word, behind 64 zeros."""

_HALF_PI, _HALF_PI_TAIL = 1.5707963267948966, 6.123233995736766e-17
_LOW = _U(0xFFFFFFFF)


def reduced(bits: Any, digits_at: Any, as_float: Any) -> tuple[Any, Any]:
    """x = turns * pi/2 + rest, turns modulo 4, |rest| <= pi/4, for |x| > LIMIT.

    Parameters
    ----------
    bits : uint64
        The representation of x in float64. What follows works on whatever has operators for
        uint64 and float64: arrays of NumPy, values of LLVM (codegen/native_math.py). So both
        executors run this one text and agree bit by bit.
    digits_at, as_float : callable
        Looks up words of TWO_OVER_PI; converts uint64 to float64.

    Returns
    -------
    turns, rest : float64
        To about one unit in the last place of `rest`; meaningless where x is not finite.
    """
    biased = (bits >> _U(52)) & _U(0x7FF)
    mantissa = (bits & _U(0xFFFFFFFFFFFFF)) | _U(0x10000000000000)
    below, above = mantissa & _LOW, mantissa >> _U(32)
    # x = mantissa 2**e with e = biased - 1075; the digit of weight 2**-(e - 1) is the first one
    # that does not give multiples of 4.
    start = biased - _U(1013)
    word, shift = start >> _U(5), start & _U(31)
    nothing = bits & _U(0)
    top, middle, bottom = nothing, nothing, nothing
    a_before, b_before, carried = nothing, nothing, nothing
    for k in range(6):
        at = word + _U(5 - k)
        pair = (digits_at(at) << _U(32)) | digits_at(at + _U(1))
        digits = (pair << shift) >> _U(32)
        a, b = digits * below, digits * above
        total = (a & _LOW) + (a_before >> _U(32)) + (b_before & _LOW) + carried
        carried = (total >> _U(32)) + (b_before >> _U(32))
        a_before, b_before = a, b
        bottom = (bottom >> _U(32)) | (middle << _U(32))
        middle = (middle >> _U(32)) | (top << _U(32))
        top = (top >> _U(32)) | (total << _U(32))
    # top.middle.bottom = x 2/pi modulo 4: two digits before the point, 190 behind it.
    whole = top >> _U(62)
    first = (top << _U(2)) | (middle >> _U(62))
    second = (middle << _U(2)) | (bottom >> _U(62))
    is_upper = first >> _U(63)
    flip = nothing - is_upper
    first, second = first ^ flip, second ^ flip
    high = as_float(first >> _U(32)) * 2.0**-32
    low = as_float(first & _LOW) * 2.0**-64
    fraction = high + low
    tail = (low - (fraction - high)) + as_float(second >> _U(32)) * 2.0**-96
    tail = tail + as_float(second & _LOW) * 2.0**-128
    rest = fraction * _HALF_PI + (fraction * _HALF_PI_TAIL + tail * _HALF_PI)
    flipped = (bits >> _U(63)) ^ is_upper
    turns = as_float((whole + is_upper) & _U(3)) * _sign(as_float, bits >> _U(63))
    return turns, rest * _sign(as_float, flipped)


def _sign(as_float: Any, is_negative: Any) -> Any:
    return as_float(is_negative) * -2.0 + 1.0


def far_turns(x: Any, turns: Any) -> Any:
    """`turns`, but the exact ones where |x| > LIMIT."""
    return _where_far(x, turns, lambda turns, rest, x: turns)


def far_rest(x: Any, rest: Any) -> Any:
    """`rest`, but the exact one where |x| > LIMIT, and NaN where x is infinite."""
    return _where_far(x, rest, lambda turns, rest, x: rest + (x - x))


def _where_far(x: Any, near: Any, chosen: Any) -> Any:
    x = np.asarray(x)
    is_far = np.abs(x) > LIMIT
    if not is_far.any():
        return near
    result, far = np.array(near), x[is_far]
    parts = reduced(far.view(np.uint64), TWO_OVER_PI.__getitem__, np.float64)
    result[is_far] = chosen(*parts, far)
    return result
