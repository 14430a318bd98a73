"""Extrema, cumulative sums and contractions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Builder, Primitive
from backsweep.ir.builder import scalar
from backsweep.primitives import elementwise as ew
from backsweep.primitives.index import iota
from backsweep.primitives.registry import declare
from backsweep.primitives.shape import (
    _evaluate_sum,
    _type_reduced,
    broadcast,
    reshape,
    sum_,
    sum_to,
    transpose,
)

# --------------------------------------------------------------------------- max, min, argmax


def _jvp_extremum(argument: str) -> Any:
    """All of the derivative to the element of lowest index that attains the extremum."""

    def jvp(b: Builder, eqn: Any, inputs: Any, tangents: Any) -> Any:
        (x,), (x_dot,) = inputs, tangents
        axes = eqn.params["axes"]
        if eqn.params.get("by_number"):
            return _jvp_by_number(b, eqn, x, x_dot)
        kept = [k for k in range(x.type.ndim) if k not in axes]
        shape = tuple(x.type.shape[k] for k in kept)

        def flat(value: Atom) -> Atom:
            moved = b(transpose, value, axes=(*kept, *axes))
            return b(reshape, moved, shape=(*shape, _size(x.type, axes)))

        x_flat, dot_flat = flat(x), flat(x_dot)
        position = b(argmax if argument == "max" else argmin, x_flat)
        full_shape = x_flat.type.shape
        wide = b(broadcast, position, shape=full_shape, dims=tuple(range(len(shape))))
        number = b(iota, shape=full_shape, axis=len(shape), dtype=np.dtype(np.int64))
        picked = b(ew.select, b(ew.eq, wide, number), dot_flat, scalar(0, x_dot))
        out = b(eqn.primitive, x, **eqn.params)
        return (out,), (b(sum_, picked, axes=(len(shape),)),)

    return jvp


def _jvp_by_number(b: Builder, eqn: Any, x: Atom, x_dot: Atom) -> Any:
    """The same where axes may be cut into blocks: elements are numbered, none are moved."""
    axes, shape = eqn.params["axes"], x.type.shape
    kept = tuple(k for k in range(len(shape)) if k not in axes)
    int64, number, stride = np.dtype(np.int64), None, 1
    for axis in reversed(axes):
        line = b(iota, shape=shape, axis=axis, dtype=int64)
        line = line if stride == 1 else b(ew.mul, line, scalar(stride, line))
        number = line if number is None else b(ew.add, number, line)
        stride *= shape[axis]
    assert number is not None
    out = b(eqn.primitive, x, **eqn.params)
    attains = b(ew.eq, x, b(broadcast, out, shape=shape, dims=kept))
    attains = b(ew.logical_or, attains, b(ew.ne, x, x))  # NaN wins
    some = b(ew.select, attains, number, scalar(stride, number))
    lowest = b(reduce_min, some, **eqn.params)
    is_it = b(ew.eq, number, b(broadcast, lowest, shape=shape, dims=kept))
    picked = b(ew.select, is_it, x_dot, scalar(0, x_dot))
    return (out,), (b(sum_, picked, axes=axes),)


def _size(type: ArrayType, axes: tuple[int, ...]) -> int:
    n = 1
    for k in axes:
        n *= type.shape[k]
    return n


def _type_arg(p: Any, x: ArrayType) -> ArrayType:
    return ArrayType(x.shape[:-1], np.dtype(np.int64))


reduce_max = declare(
    Primitive(
        "reduce_max",
        "reduce",
        _type_reduced,
        lambda p, x: np.max(x, axis=p["axes"]),
        jvp=_jvp_extremum("max"),
    )
)
reduce_min = declare(
    Primitive(
        "reduce_min",
        "reduce",
        _type_reduced,
        lambda p, x: np.min(x, axis=p["axes"]),
        jvp=_jvp_extremum("min"),
    )
)
argmax = declare(Primitive("argmax", "reduce", _type_arg, lambda p, x: np.argmax(x, axis=-1)))
argmin = declare(Primitive("argmin", "reduce", _type_arg, lambda p, x: np.argmin(x, axis=-1)))

# --------------------------------------------------------------------------- cumsum


def _evaluate_cumsum(p: Any, x: Any) -> Any:
    x = np.asarray(x)
    if p["reverse"]:
        return np.flip(np.cumsum(np.flip(x, p["axis"]), p["axis"], dtype=x.dtype), p["axis"])
    return np.cumsum(x, p["axis"], dtype=x.dtype)


def _t_cumsum(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    p = eqn.params
    return [b(cumsum, cts[0], axis=p["axis"], reverse=not p["reverse"])]


cumsum = declare(
    Primitive(
        "cumsum", "scan", lambda p, x: x, _evaluate_cumsum, linearity="joint", transpose=_t_cumsum
    )
)

# --------------------------------------------------------------------------- einsum


def _einsum_parts(p: Any) -> tuple[str, str, str]:
    left, out = p["subscripts"].split("->")
    x, y = left.split(",")
    return x, y, out


def _type_einsum(p: Any, x: ArrayType, y: ArrayType) -> ArrayType:
    """Two operands; a letter stands once in each and in one of the others at least."""
    extents: dict[str, int] = {}
    xs, ys, out = _einsum_parts(p)
    for letters, type in ((xs, x), (ys, y)):
        for letter, extent in zip(letters, type.shape, strict=True):
            if extents.setdefault(letter, extent) != extent:
                raise ShapeError(
                    f"einsum {p['subscripts']}: extents of {letter!r} differ: {x}, {y}"
                )
    return ArrayType(tuple(extents[c] for c in out), x.dtype, x.weak and y.weak)


def _einsum_letters(xs: str, ys: str, out: str) -> str:
    """Dimensions of the product: those of the result, then those summed over."""
    return out + "".join(c for c in dict.fromkeys(xs + ys) if c not in out)


def _einsum_extents(xs: str, ys: str, x: tuple[int, ...], y: tuple[int, ...]) -> dict[str, int]:
    return {**dict(zip(xs, x, strict=True)), **dict(zip(ys, y, strict=True))}


def einsum_size(p: Any, x: ArrayType, y: ArrayType) -> int:
    """How many products are added up."""
    xs, ys, _ = _einsum_parts(p)
    return math.prod(_einsum_extents(xs, ys, x.shape, y.shape).values())


def einsum_as_sum(b: Builder, p: Any, x: Atom, y: Atom) -> Atom:
    """The same contraction as a broadcast product and a sum, for fused kernels."""
    xs, ys, out = _einsum_parts(p)
    letters = _einsum_letters(xs, ys, out)
    extents = _einsum_extents(xs, ys, x.type.shape, y.type.shape)
    shape = tuple(extents[c] for c in letters)

    def wide(value: Atom, own: str) -> Atom:
        order = sorted(range(len(own)), key=lambda k: letters.index(own[k]))
        moved = b(transpose, value, axes=tuple(order)) if order != list(range(len(own))) else value
        dims = tuple(letters.index(own[k]) for k in order)
        return b(broadcast, moved, shape=shape, dims=dims)

    product = b(ew.mul, wide(x, xs), wide(y, ys))
    return sum_to(b, product, tuple(range(len(out), len(letters))))


ORDERED_PRODUCT = 1 << 16
"""Products of up to so many elements are summed in the order that compiled code uses; larger
ones, which are no longer equal to it bit by bit, are left to BLAS."""


def _evaluate_einsum(p: Any, x: Any, y: Any) -> Any:
    xs, ys, out = _einsum_parts(p)
    letters = _einsum_letters(xs, ys, out)
    extents = _einsum_extents(xs, ys, np.shape(x), np.shape(y))
    if np.prod([extents[c] for c in letters]) > ORDERED_PRODUCT:
        return np.einsum(p["subscripts"], x, y, optimize=True)

    def wide(value: Any, own: str) -> Any:
        order = sorted(range(len(own)), key=lambda k: letters.index(own[k]))
        shape = [extents[c] if c in own else 1 for c in letters]
        return np.transpose(value, order).reshape(shape)

    product = ew.mul.evaluate({}, wide(x, xs), wide(y, ys))
    axes = tuple(range(len(out), len(letters)))
    return _evaluate_sum({"axes": axes}, product) if axes else product


def _t_einsum(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    xs, ys, out = _einsum_parts(eqn.params)
    x, y = eqn.inputs
    if linear[0]:
        return [_einsum_adjoint(b, cts[0], out, y, ys, x.type, xs), None]
    return [None, _einsum_adjoint(b, cts[0], out, x, xs, y.type, ys)]


def _einsum_adjoint(
    b: Builder, ct: Atom, out: str, other: Atom, others: str, type: ArrayType, own: str
) -> Atom:
    """Letters that only the own operand has were summed over: they are broadcast back."""
    reached = "".join(c for c in own if c in out or c in others)
    subscripts = f"{out},{others}->{reached}"
    value = b(einsum, ct, ew.conj_if_complex(b, other), subscripts=subscripts)
    if reached == own:
        return value
    dims = tuple(own.index(c) for c in reached)
    return b(broadcast, value, shape=type.shape, dims=dims)


einsum = declare(
    Primitive(
        "einsum",
        "contract",
        _type_einsum,
        _evaluate_einsum,
        linearity="multi",
        transpose=_t_einsum,
    )
)
