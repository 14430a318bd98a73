"""Gathers and scatters: index arrays on the leading axes of an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Builder, Equation, Primitive
from backsweep.ir.builder import scalar
from backsweep.primitives.elementwise import eq, select
from backsweep.primitives.index import iota, update
from backsweep.primitives.registry import declare
from backsweep.primitives.shape import broadcast, reshape, zeros


def _type_gather(p: Any, x: ArrayType, *indices: ArrayType) -> ArrayType:
    """Index arrays of one shape K on the leading axes: K + the rest of x's shape."""
    if len({t.shape for t in indices}) != 1 or any(t.dtype != np.int64 for t in indices):
        raise ShapeError("gather: index arrays must be int64 of one shape")
    return x.with_shape(indices[0].shape + x.shape[len(indices) :])


def _type_scatter(p: Any, base: ArrayType, value: ArrayType, *indices: ArrayType) -> ArrayType:
    expected = _type_gather(p, base, *indices)
    if (value.shape, value.dtype) != (expected.shape, expected.dtype):
        raise ShapeError(f"scatter: the value is {value}, {expected} expected")
    return base.with_shape(base.shape)


def _evaluate_scatter_add(p: Any, base: Any, value: Any, *indices: Any) -> Any:
    out = np.array(base)
    np.add.at(out, indices, value)
    return out


def _evaluate_scatter(p: Any, base: Any, value: Any, *indices: Any) -> Any:
    """The last of several values for the same element wins, whatever NumPy does inside."""
    out = np.array(base)
    for k in np.ndindex(np.shape(indices[0])):
        out[tuple(i[k] for i in indices)] = value[k]
    return out


def _t_gather(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    x, *indices = eqn.inputs
    base = zeros(b, x.type)
    return [b(scatter_add, base, cts[0], *indices, **eqn.params), *[None] * len(indices)]


def _t_scatter_add(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    indices = eqn.inputs[2:]
    value_ct = b(gather, cts[0], *indices, **eqn.params) if linear[1] else None
    return [cts[0] if linear[0] else None, value_ct, *[None] * len(indices)]


def _t_scatter(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    base, value, *indices = eqn.inputs
    ct, value_ct = cts[0], None
    if linear[1]:
        value_ct = b(gather, ct, *indices, **eqn.params)
        if not eqn.params["unique"]:
            value_ct = _winners_only(b, value_ct, base.type, indices)
    hole = zeros(b, value.type)
    base_ct = b(scatter, ct, hole, *indices, **eqn.params) if linear[0] else None
    return [base_ct, value_ct, *[None] * len(indices)]


def _winners_only(b: Builder, ct: Atom, base: ArrayType, indices: list[Atom]) -> Atom:
    """Zero the cotangents of values that a later one overwrote."""
    int64 = np.dtype(np.int64)
    points = indices[0].type
    assert isinstance(points, ArrayType) and isinstance(ct.type, ArrayType)
    flat = b(iota, shape=(points.size,), axis=0, dtype=int64)
    number = b(reshape, flat, shape=points.shape)
    cells = zeros(b, ArrayType(base.shape[: len(indices)], int64))
    last = b(scatter, cells, number, *indices, unique=False)
    wins = b(eq, b(gather, last, *indices, unique=False), number)
    mask = b(broadcast, wins, shape=ct.type.shape, dims=tuple(range(points.ndim)))
    return b(select, mask, ct, scalar(0, ct))


gather = declare(
    Primitive(
        "gather",
        "index",
        _type_gather,
        lambda p, x, *indices: x[indices],
        linearity="joint",
        linear_in=(0,),
        transpose=_t_gather,
    )
)
scatter_add = declare(
    Primitive(
        "scatter_add",
        "index",
        _type_scatter,
        _evaluate_scatter_add,
        linearity="joint",
        linear_in=(0, 1),
        transpose=_t_scatter_add,
    )
)
scatter = declare(
    Primitive(
        "scatter",
        "index",
        _type_scatter,
        _evaluate_scatter,
        linearity="joint",
        linear_in=(0, 1),
        transpose=_t_scatter,
    )
)


def is_patch(eqn: Equation) -> bool:
    """An operation that changes a few elements of its base: it can work in place."""
    if eqn.primitive is update:
        return any(abs(s) != 1 for s in eqn.params["steps"])
    return eqn.primitive in (scatter, scatter_add)
