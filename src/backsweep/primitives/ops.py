"""Basic scalar operations and the vocabulary in which the others are expanded.

An elementwise primitive is either *basic* (one NumPy call, one source fragment) or
*expanded*: written once in terms of basic ones. Evaluation runs the expansion on
arrays (`NumpyOps`), code generation runs it on the nodes of a kernel, so both do
the same arithmetic in the same order and agree bit by bit.

Complex values are pairs (real, imaginary) throughout: complex arithmetic is expanded
as well, because Numba's and NumPy's own complex loops round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.primitives import bits, far, transcendental


@dataclass(frozen=True, slots=True)
class Basic:
    """One basic operation: its NumPy function and its Numba source fragment."""

    numpy: Callable[..., Any]
    template: str
    cost: int = 1


BASIC: dict[str, Basic] = {
    "add": Basic(np.add, "({0} + {1})"),
    "sub": Basic(np.subtract, "({0} - {1})"),
    "mul": Basic(np.multiply, "({0} * {1})"),
    "div": Basic(np.true_divide, "({0} / {1})", 8),
    "neg": Basic(np.negative, "(-{0})"),
    "sqrt": Basic(np.sqrt, "math.sqrt({0})", 10),
    "abs": Basic(np.abs, "abs({0})"),
    "floor": Basic(np.floor, "np.floor({0})", 2),
    "ceil": Basic(np.ceil, "np.ceil({0})", 2),
    "lt": Basic(np.less, "({0} < {1})"),
    "le": Basic(np.less_equal, "({0} <= {1})"),
    "gt": Basic(np.greater, "({0} > {1})"),
    "ge": Basic(np.greater_equal, "({0} >= {1})"),
    "eq": Basic(np.equal, "({0} == {1})"),
    "ne": Basic(np.not_equal, "({0} != {1})"),
    "logical_and": Basic(np.logical_and, "({0} & {1})"),
    "logical_or": Basic(np.logical_or, "({0} | {1})"),
    "logical_xor": Basic(np.logical_xor, "({0} ^ {1})"),
    "logical_not": Basic(np.logical_not, "(not {0})"),
    "select": Basic(np.where, "({1} if {0} else {2})", 2),
    "floor_divide": Basic(np.floor_divide, "({0} // {1})", 10),
    "tan": Basic(np.tan, "math.tan({0})", 40),
    "arcsin": Basic(np.arcsin, "math.asin({0})", 30),
    "arccos": Basic(np.arccos, "math.acos({0})", 30),
    "arctan": Basic(np.arctan, "math.atan({0})", 30),
    "arctan2": Basic(np.arctan2, "math.atan2({0}, {1})", 40),
    "sinh": Basic(np.sinh, "math.sinh({0})", 40),
    "cosh": Basic(np.cosh, "math.cosh({0})", 40),
    "arcsinh": Basic(np.arcsinh, "math.asinh({0})", 40),
    "arccosh": Basic(np.arccosh, "math.acosh({0})", 40),
    "arctanh": Basic(np.arctanh, "math.atanh({0})", 40),
    "pow": Basic(np.power, "({0} ** {1})", 60),
    "power_of_two": Basic(bits.power_of_two, "power_of_two({0})", 2),
    "exponent": Basic(bits.exponent, "exponent_of({0})", 3),
    "mantissa": Basic(bits.mantissa, "mantissa_of({0})", 2),
    "root_guess": Basic(bits.root_guess, "root_guess({0})", 2),
    "upper_half": Basic(bits.upper_half, "upper_half({0})"),
    "far_turns": Basic(far.far_turns, "far_turns({0}, {1})"),
    "far_rest": Basic(far.far_rest, "far_rest({0}, {1})"),
}

EXPANDED_COST = {
    **dict.fromkeys(("sin", "cos", "exp", "expm1", "log", "log1p"), 30),
    "tanh": 40,
}
"""Of the expansions in `transcendental`, in the units of `Basic.cost`."""


def cost_of(name: str) -> int:
    """Of an operation on one element, in units of one addition."""
    if name in EXPANDED_COST:
        return EXPANDED_COST[name]
    if name == "power":
        return 12
    return BASIC[name].cost if name in BASIC else 1


class NumpyOps:
    """The vocabulary of expansions, run on NumPy arrays."""

    def __call__(self, name: str, *args: Any) -> Any:
        return BASIC[name].numpy(*args)

    def const(self, value: float, like: Any) -> Any:
        """A constant with the dtype of another value."""
        return np.asarray(like).dtype.type(value)

    def cast(self, dtype: Any, value: Any) -> Any:
        return np.asarray(value).astype(dtype, copy=False)

    def dtype(self, value: Any) -> np.dtype:
        return np.asarray(value).dtype


NUMPY_OPS = NumpyOps()

# --------------------------------------------------------------------------- powers

EXPANDED_EXPONENTS = frozenset(
    sign * e for sign in (1.0, -1.0) for e in (0.5, 1.5, 2.5, 3.5, 1.0, 2.0, 3.0, 4.0)
)
INVERSE_ROOT_EXPONENTS = frozenset((-1.5, -2.5, -3.5))


def power(ops: Any, params: Any, x: Any) -> Any:
    """x**exponent for the exponents that products and one square root can make."""
    exponent = params["exponent"]
    if exponent in INVERSE_ROOT_EXPONENTS:
        return transcendental.inverse_root_power(ops, x, int(-2 * exponent))
    whole, half = divmod(abs(exponent), 1.0)
    result = None
    for _ in range(int(whole)):
        result = x if result is None else ops("mul", result, x)
    if half:
        root = ops("sqrt", x)
        result = root if result is None else ops("mul", result, root)
    return result if exponent > 0 else ops("div", ops.const(1, x), result)


# --------------------------------------------------------------------------- extrema


def maximum(ops: Any, params: Any, x: Any, y: Any) -> Any:
    return _extremum(ops, "ge", x, y)


def minimum(ops: Any, params: Any, x: Any, y: Any) -> Any:
    return _extremum(ops, "le", x, y)


def _extremum(ops: Any, comparison: str, x: Any, y: Any) -> Any:
    """As NumPy: NaN where either operand is NaN."""
    take_x = ops("logical_or", ops(comparison, x, y), ops("ne", x, x))
    return ops("select", take_x, x, y)


def sign(ops: Any, params: Any, x: Any) -> Any:
    zero, one = ops.const(0, x), ops.const(1, x)
    down = ops("select", ops("lt", x, zero), ops("neg", one), x)
    return ops("select", ops("gt", x, zero), one, down)


def remainder(ops: Any, params: Any, x: Any, y: Any) -> Any:
    return ops("sub", x, ops("mul", ops("floor", ops("div", x, y)), y))


# --------------------------------------------------------------------------- complex

Pair = tuple[Any, Any]


def complex_mul(ops: Any, x: Pair, y: Pair) -> Pair:
    re = ops("sub", ops("mul", x[0], y[0]), ops("mul", x[1], y[1]))
    return re, ops("add", ops("mul", x[0], y[1]), ops("mul", x[1], y[0]))


def complex_div(ops: Any, x: Pair, y: Pair) -> Pair:
    size = ops("add", ops("mul", y[0], y[0]), ops("mul", y[1], y[1]))
    re = ops("add", ops("mul", x[0], y[0]), ops("mul", x[1], y[1]))
    im = ops("sub", ops("mul", x[1], y[0]), ops("mul", x[0], y[1]))
    return ops("div", re, size), ops("div", im, size)


def complex_exp(ops: Any, x: Pair) -> Pair:
    t = transcendental
    size = t.exp(ops, {}, x[0])
    return ops("mul", size, t.cos(ops, {}, x[1])), ops("mul", size, t.sin(ops, {}, x[1]))


def complex_abs(ops: Any, x: Pair) -> Any:
    return ops("sqrt", ops("add", ops("mul", x[0], x[0]), ops("mul", x[1], x[1])))


def complex_sqrt(ops: Any, x: Pair) -> Pair:
    """Principal branch: re = sqrt((|x| + re)/2), im with the sign of im(x)."""
    half, size = ops.const(0.5, x[0]), complex_abs(ops, x)
    re = ops("sqrt", ops("mul", half, ops("add", size, x[0])))
    im = ops("sqrt", ops("mul", half, ops("sub", size, x[0])))
    return re, ops("select", ops("lt", x[1], ops.const(0, im)), ops("neg", im), im)


def complex_log(ops: Any, x: Pair) -> Pair:
    return transcendental.log(ops, {}, complex_abs(ops, x)), ops("arctan2", x[1], x[0])


COMPLEX: dict[str, Callable[..., Any]] = {
    "add": lambda ops, x, y: (ops("add", x[0], y[0]), ops("add", x[1], y[1])),
    "sub": lambda ops, x, y: (ops("sub", x[0], y[0]), ops("sub", x[1], y[1])),
    "neg": lambda ops, x: (ops("neg", x[0]), ops("neg", x[1])),
    "mul": complex_mul,
    "div": complex_div,
    "exp": complex_exp,
    "log": complex_log,
    "sqrt": complex_sqrt,
    "select": lambda ops, m, x, y: (ops("select", m, x[0], y[0]), ops("select", m, x[1], y[1])),
    "eq": lambda ops, x, y: ops("logical_and", ops("eq", x[0], y[0]), ops("eq", x[1], y[1])),
    "ne": lambda ops, x, y: ops("logical_or", ops("ne", x[0], y[0]), ops("ne", x[1], y[1])),
    "conj": lambda ops, x: (x[0], ops("neg", x[1])),
    "real": lambda ops, x: x[0],
    "imag": lambda ops, x: x[1],
    "complex": lambda ops, re, im: (re, im),
    "complex_abs": complex_abs,
}
