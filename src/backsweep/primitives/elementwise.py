"""Elementwise primitives: one output element from the same element of each input.

Operands have one shape and, but for masks, one dtype; literals are scalars. Broadcasts
and casts are equations of their own, so that every rule here stays one line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Builder, Literal, Primitive
from backsweep.ir.builder import same_shape, scalar
from backsweep.primitives import ops
from backsweep.primitives import transcendental as tr
from backsweep.primitives.registry import declare

Partial = Callable[[Builder, Any, tuple[Atom, ...], Atom], Atom]


def _type_same(name: str) -> Callable[..., ArrayType]:
    def rule(params: Any, *types: ArrayType) -> ArrayType:
        dtypes = {t.dtype for t in types}
        if len(dtypes) != 1:
            raise ShapeError(f"{name}: operands of different dtypes {sorted(map(str, dtypes))}")
        return ArrayType(same_shape(name, *types), types[0].dtype, all(t.weak for t in types))

    return rule


def _type_bool(name: str) -> Callable[..., ArrayType]:
    same = _type_same(name)

    def rule(params: Any, *types: ArrayType) -> ArrayType:
        return same(params, *types).with_dtype(np.dtype(bool))

    return rule


def _split(x: Any) -> Any:
    x = np.asarray(x)
    return (x.real, x.imag) if x.dtype.kind == "c" else x


def _join(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    re, im = value
    dtype = np.result_type(np.asarray(re).dtype, np.complex64)
    out = np.empty(np.broadcast_shapes(np.shape(re), np.shape(im)), dtype)
    out.real, out.imag = re, im
    return out


def _evaluation(name: str, expand: Callable[..., Any] | None) -> Callable[..., Any]:
    def evaluate(params: Any, *args: Any) -> Any:
        if any(np.asarray(a).dtype.kind == "c" for a in args) or name == "complex":
            return _join(ops.COMPLEX[name](ops.NUMPY_OPS, *(_split(a) for a in args)))
        if expand is not None:
            return expand(ops.NUMPY_OPS, params, *args)
        return ops.BASIC[name].numpy(*args)

    return evaluate


def elementwise(
    name: str,
    *partials: Partial | None,
    type_rule: Callable[..., Any] | None = None,
    expand: Callable[..., Any] | None = None,
    **rest: Any,
) -> Primitive:
    """Declare an elementwise primitive by its name and partial derivatives."""
    return declare(
        Primitive(
            name=name,
            kind="elementwise",
            type_rule=type_rule or _type_same(name),
            evaluate=_evaluation(name, expand),
            partials=partials or None,
            expand=expand,
            template=ops.BASIC[name].template if name in ops.BASIC else None,
            **rest,
        )
    )


def conj_if_complex(b: Builder, x: Atom) -> Atom:
    return b(conj, x) if x.type.dtype.kind == "c" else x  # type: ignore[union-attr]


# --------------------------------------------------------------------------- linear


def _t_add(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [cts[0], cts[0]]


def _t_sub(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [cts[0] if linear[0] else None, b(neg, cts[0]) if linear[1] else None]


def _t_neg(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(neg, cts[0])]


def _t_mul(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    x, y = eqn.inputs
    if linear[0]:
        return [b(mul, cts[0], conj_if_complex(b, y)), None]
    return [None, b(mul, conj_if_complex(b, x), cts[0])]


def _t_div(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    """By the reciprocal, which all cotangents that are divided by one value share."""
    y = eqn.inputs[1]
    if isinstance(y, Literal) or y.type.dtype.kind == "c":
        return [b(div, cts[0], conj_if_complex(b, y)), None]
    return [b(mul, cts[0], b(div, scalar(1, y), y)), None]


def _t_select(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    mask, ct = eqn.inputs[0], cts[0]
    zero = scalar(0, ct)
    return [
        None,
        b(select, mask, ct, zero) if linear[1] else None,
        b(select, mask, zero, ct) if linear[2] else None,
    ]


add = elementwise("add", linearity="joint", transpose=_t_add)
sub = elementwise("sub", linearity="joint", transpose=_t_sub)
neg = elementwise("neg", linearity="joint", transpose=_t_neg)
mul = elementwise("mul", linearity="multi", transpose=_t_mul)


def _jvp_div(b: Builder, eqn: Any, inputs: Any, tangents: Any) -> Any:
    """d(x / y) = (dx - x (1 / y) dy) / y.

    The adjoint shares the reciprocal, and needs no quotient: where only the adjoint of
    a step is computed, one division is left.
    """
    (x, y), (x_dot, y_dot) = inputs, tangents
    out = b(div, x, y)
    if y_dot is None:
        return (out,), (b(div, x_dot, y),)
    quotient = out if y.type.dtype.kind == "c" else b(mul, x, b(div, scalar(1, y), y))
    change = b(mul, quotient, y_dot)
    change = b(neg, change) if x_dot is None else b(sub, x_dot, change)
    return (out,), (b(div, change, y),)


div = elementwise("div", linearity="multi", linear_in=(0,), jvp=_jvp_div, transpose=_t_div)


def _type_select(params: Any, mask: ArrayType, x: ArrayType, y: ArrayType) -> ArrayType:
    if mask.dtype != np.bool_:
        raise ShapeError(f"select: the mask is {mask}, not boolean")
    type = _type_same("select")(params, x, y)
    return ArrayType(same_shape("select", mask, x, y), type.dtype)


select = elementwise(
    "select", type_rule=_type_select, linearity="joint", linear_in=(1, 2), transpose=_t_select
)


def _type_cast(params: Any, x: ArrayType) -> ArrayType:
    return x.with_dtype(params["dtype"])


def _evaluate_cast(params: Any, x: Any) -> Any:
    return np.asarray(x).astype(params["dtype"])


def _t_cast(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [convert(b, cts[0], eqn.inputs[0].type.dtype)]


cast = declare(
    Primitive(
        "cast", "elementwise", _type_cast, _evaluate_cast, linearity="joint", transpose=_t_cast
    )
)


def convert(b: Builder, x: Atom, dtype: np.dtype) -> Atom:
    """Cast, where complex to real is the adjoint of the embedding: the real part."""
    assert isinstance(x.type, ArrayType)
    if x.type.dtype.kind == "c" and dtype.kind == "f":
        x = b(real, x)
    return x if x.type.dtype == dtype else b(cast, x, dtype=dtype)  # type: ignore[union-attr]


# --------------------------------------------------------------------------- complex


def _real_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"f{dtype.itemsize // 2}")


def _type_part(params: Any, x: ArrayType) -> ArrayType:
    return x.with_dtype(_real_dtype(x.dtype))


def _type_complex(params: Any, re: ArrayType, im: ArrayType) -> ArrayType:
    type = _type_same("complex")(params, re, im)
    return type.with_dtype(np.dtype(f"c{type.dtype.itemsize * 2}"))


def _t_real(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(complex_, cts[0], scalar(0, cts[0]))]


def _t_imag(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(complex_, scalar(0, cts[0]), cts[0])]


def _t_conj(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(conj, cts[0])]


def _t_complex(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(real, cts[0]) if linear[0] else None, b(imag, cts[0]) if linear[1] else None]


real = elementwise("real", type_rule=_type_part, linearity="joint", transpose=_t_real)
imag = elementwise("imag", type_rule=_type_part, linearity="joint", transpose=_t_imag)
conj = elementwise("conj", linearity="joint", transpose=_t_conj)
complex_ = elementwise("complex", type_rule=_type_complex, linearity="joint", transpose=_t_complex)


def _jvp_complex_abs(b: Builder, eqn: Any, inputs: Any, tangents: Any) -> Any:
    """d|z| = Re(conj(z) dz) / |z|, and 0 where z = 0."""
    (z,), (z_dot,) = inputs, tangents
    size = b(complex_abs, z)
    at_zero = b(eq, size, scalar(0, size))
    safe = b(select, at_zero, scalar(1, size), size)
    slope = b(real, b(mul, b(conj, z), z_dot))
    return (size,), (b(div, slope, safe),)


complex_abs = elementwise("complex_abs", type_rule=_type_part, jvp=_jvp_complex_abs)

# --------------------------------------------------------------------------- nonlinear


def _half_where_equal(comparison: str) -> tuple[Partial, Partial]:
    """1 where the operand wins, 1/2 at a tie, else 0."""

    def weight(b: Builder, x: Atom, y: Atom) -> Atom:
        one, half, zero = scalar(1, x), scalar(0.5, x), scalar(0, x)
        wins = b(gt if comparison == "gt" else lt, x, y)
        return b(select, wins, one, b(select, b(eq, x, y), half, zero))

    return (lambda b, p, x, out: weight(b, x[0], x[1])), (
        lambda b, p, x, out: weight(b, x[1], x[0])
    )


lt = elementwise("lt", type_rule=_type_bool("lt"))
le = elementwise("le", type_rule=_type_bool("le"))
gt = elementwise("gt", type_rule=_type_bool("gt"))
ge = elementwise("ge", type_rule=_type_bool("ge"))
eq = elementwise("eq", type_rule=_type_bool("eq"))
ne = elementwise("ne", type_rule=_type_bool("ne"))
logical_and = elementwise("logical_and")
logical_or = elementwise("logical_or")
logical_xor = elementwise("logical_xor")
logical_not = elementwise("logical_not")
floor = elementwise("floor")
ceil = elementwise("ceil")
sign = elementwise("sign", expand=ops.sign)
floor_divide = elementwise("floor_divide")
remainder = elementwise(
    "remainder",
    lambda b, p, x, out: scalar(1, out),
    lambda b, p, x, out: b(neg, b(floor, b(div, x[0], x[1]))),
    expand=ops.remainder,
)
maximum = elementwise("maximum", *_half_where_equal("gt"), expand=ops.maximum)
minimum = elementwise("minimum", *_half_where_equal("lt"), expand=ops.minimum)
abs_ = elementwise("abs", lambda b, p, x, out: b(sign, x[0]))

sqrt = elementwise("sqrt", lambda b, p, x, out: b(div, scalar(0.5, out), out))
exp = elementwise("exp", lambda b, p, x, out: out, expand=tr.exp)
log = elementwise("log", lambda b, p, x, out: b(div, scalar(1, out), x[0]), expand=tr.log)
expm1 = elementwise("expm1", lambda b, p, x, out: b(add, out, scalar(1, out)), expand=tr.expm1)
log1p = elementwise(
    "log1p",
    lambda b, p, x, out: b(div, scalar(1, out), b(add, x[0], scalar(1, out))),
    expand=tr.log1p,
)
sin: Primitive = elementwise("sin", lambda b, p, x, out: b(cos, x[0]), expand=tr.sin)
cos: Primitive = elementwise("cos", lambda b, p, x, out: b(neg, b(sin, x[0])), expand=tr.cos)
tan = elementwise("tan", lambda b, p, x, out: b(add, scalar(1, out), b(mul, out, out)))
sinh: Primitive = elementwise("sinh", lambda b, p, x, out: b(cosh, x[0]))
cosh: Primitive = elementwise("cosh", lambda b, p, x, out: b(sinh, x[0]))
tanh = elementwise(
    "tanh", lambda b, p, x, out: b(sub, scalar(1, out), b(mul, out, out)), expand=tr.tanh
)


def _inverse_root(sign_x: int, constant: int) -> Partial:
    """1 / sqrt(sign_x x^2 + constant)"""

    def partial(b: Builder, p: Any, x: tuple[Atom, ...], out: Atom) -> Atom:
        square = b(mul, x[0], x[0])
        square = square if sign_x > 0 else b(neg, square)
        return b(div, scalar(1, out), b(sqrt, b(add, square, scalar(constant, out))))

    return partial


arcsin = elementwise("arcsin", _inverse_root(-1, 1))
arccos = elementwise("arccos", lambda b, p, x, out: b(neg, _inverse_root(-1, 1)(b, p, x, out)))
arcsinh = elementwise("arcsinh", _inverse_root(1, 1))
arccosh = elementwise("arccosh", _inverse_root(1, -1))
arctan = elementwise(
    "arctan",
    lambda b, p, x, out: b(div, scalar(1, out), b(add, b(mul, x[0], x[0]), scalar(1, out))),
)
arctanh = elementwise(
    "arctanh",
    lambda b, p, x, out: b(div, scalar(1, out), b(sub, scalar(1, out), b(mul, x[0], x[0]))),
)


def _arctan2_partial(position: int) -> Partial:
    """d arctan2(y, x): (x, -y) / (x^2 + y^2)"""

    def partial(b: Builder, p: Any, x: tuple[Atom, ...], out: Atom) -> Atom:
        size = b(add, b(mul, x[0], x[0]), b(mul, x[1], x[1]))
        return b(div, x[1] if position == 0 else b(neg, x[0]), size)

    return partial


arctan2 = elementwise("arctan2", _arctan2_partial(0), _arctan2_partial(1))


def power_of(b: Builder, x: Atom, exponent: float) -> Atom:
    """x**exponent with a literal exponent, cheaply where that is possible."""
    if exponent == 0.0:
        return scalar(1, x)
    if exponent == 1.0:
        return x
    if abs(exponent) in ops.EXPANDED_EXPONENTS:
        return b(power, x, exponent=exponent)
    return b(pow_, x, scalar(exponent, x))


def _power_partial(b: Builder, p: Any, x: tuple[Atom, ...], out: Atom) -> Atom:
    e = p["exponent"]
    return b(mul, scalar(e, x[0]), power_of(b, x[0], e - 1.0))


def _pow_in_base(b: Builder, p: Any, x: tuple[Atom, ...], out: Atom) -> Atom:
    return b(mul, x[1], b(pow_, x[0], b(sub, x[1], scalar(1, x[1]))))


def _pow_in_exponent(b: Builder, p: Any, x: tuple[Atom, ...], out: Atom) -> Atom:
    """x^y log(x), and 0 where x <= 0: there the power has no derivative in y."""
    positive = b(gt, x[0], scalar(0, x[0]))
    safe = b(select, positive, x[0], scalar(1, x[0]))
    return b(mul, out, b(log, safe))


power = elementwise("power", _power_partial, expand=ops.power)
pow_ = elementwise("pow", _pow_in_base, _pow_in_exponent)
