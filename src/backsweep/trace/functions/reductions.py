"""Reductions and running sums."""

from __future__ import annotations

from collections.abc import Callable
from math import prod as product_of
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Atom, Literal
from backsweep.primitives import elementwise as ew
from backsweep.primitives import reduce as rd
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import (
    cast,
    dense,
    handles,
    normal_axes,
    normal_axis,
    traced,
    type_of,
)
from backsweep.trace.functions.joining import concatenate
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.ufuncs import apply, as_mask


def _summed_dtype(dtype: np.dtype) -> np.dtype:
    """Small integers are added as int64 or uint64."""
    if dtype.kind in "bi":
        return np.result_type(dtype, np.int64)
    return np.result_type(dtype, np.uint64) if dtype.kind == "u" else dtype


def _finish(value: Atom, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Any:
    if not keepdims:
        return wrap(value)
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
    return wrap(require_trace().emit(sh.reshape, value, shape=kept))


@handles(np.sum, methods=["sum"])
def sum_(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> TracedArray:
    atom = lift(a)
    type = type_of(atom)
    atom = cast(atom, dtype if dtype is not None else _summed_dtype(type.dtype))
    axes = normal_axes(axis, type.ndim)
    value = require_trace().emit(sh.sum_, atom, axes=axes) if axes else atom
    return _finish(value, type.shape, axes, keepdims)


@handles(np.nansum)
def nansum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> TracedArray:
    a = traced(a)
    return sum_(np.where(a != a, a.dtype.type(0), a), axis, dtype, keepdims=keepdims)


@handles(np.mean, methods=["mean"])
def mean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> TracedArray:
    a = traced(a)
    if dtype is None and a.dtype.kind in "iub":
        dtype = np.float64
    n = product_of(a.shape[k] for k in normal_axes(axis, a.ndim))
    return sum_(a, axis, dtype, keepdims=keepdims) / n


@handles(np.average)
def average(a: Any, axis: Any = None, weights: Any = None) -> TracedArray:
    if weights is None:
        return mean(a, axis)
    a, weights = traced(a), traced(weights)
    if weights.shape != a.shape:
        if weights.ndim != 1 or axis is None:
            raise trace_error("np.average: weights need the shape of the values or one axis")
        shape = [1] * a.ndim
        shape[normal_axis(axis, a.ndim)] = weights.size
        weights = wrap(lift(weights)).reshape(shape)
    total = sum_(weights * np.ones(a.shape, a.dtype), axis)
    return sum_(a * weights, axis) / total


@handles(np.var, methods=["var"])
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    ddof: Any = 0,
    correction: Any = None,
    keepdims: bool = False,
) -> TracedArray:
    a = traced(a)
    ddof = ddof if correction is None else correction
    n = product_of(a.shape[k] for k in normal_axes(axis, a.ndim))
    away = a - mean(a, axis, dtype, keepdims=True)
    if away.dtype.kind == "c":
        square = away.real * away.real + away.imag * away.imag
    else:
        square = away * away
    return sum_(square, axis, keepdims=keepdims) / max(n - ddof, 0)


@handles(np.std, methods=["std"])
def std(a: Any, axis: Any = None, dtype: Any = None, **kwargs: Any) -> TracedArray:
    return apply(np.sqrt, var(a, axis, dtype, **kwargs))


@handles(np.prod, methods=["prod"])
def prod(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> TracedArray:
    """Products of halves, so that derivatives hold at zeros and n factors are log2(n) equations."""
    atom = lift(a)
    shape = type_of(atom).shape
    atom = cast(atom, dtype if dtype is not None else _summed_dtype(type_of(atom).dtype))
    axes = normal_axes(axis, len(shape))
    if not axes:
        return wrap(atom)
    value = wrap(_flattened_last(atom, axes))
    n = value.shape[-1]
    if n == 0:
        kept = tuple(m for k, m in enumerate(shape) if k not in axes)
        ones = Literal(1, ArrayType((), value.dtype))
        return _finish(
            require_trace().emit(sh.broadcast, ones, shape=kept, dims=()), shape, axes, keepdims
        )
    while n > 1:
        half = n // 2
        paired = value[..., :half] * value[..., half : 2 * half]
        value = concatenate([paired, value[..., -1:]], axis=-1) if n % 2 else paired
        n = n - half
    return _finish(lift(value[..., 0]), shape, axes, keepdims)


def _flattened_last(atom: Atom, axes: tuple[int, ...]) -> Atom:
    """The axes as one, the last."""
    emit = require_trace().emit
    shape = type_of(atom).shape
    kept = [k for k in range(len(shape)) if k not in axes]
    order = (*kept, *axes)
    if order != tuple(range(len(shape))):
        atom = emit(sh.transpose, dense(atom), axes=order)
    size = product_of(shape[k] for k in axes)
    return emit(sh.reshape, atom, shape=(*(shape[k] for k in kept), size))


def _extremum(primitive: Any, name: str) -> Callable[..., TracedArray]:
    def rule(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
        atom = lift(a)
        type = type_of(atom)
        axes = normal_axes(axis, type.ndim)
        if any(type.shape[k] == 0 for k in axes):
            raise ValueError(f"{name} of no elements has no value{at_user_line()}")
        if type.dtype.kind in "c":
            raise trace_error(f"{name} of complex values is not supported: use abs() or .real")
        trace = require_trace()
        params = {"axes": axes, "by_number": True} if trace.is_cut else {"axes": axes}
        value = trace.emit(primitive, atom, **params) if axes else atom
        return _finish(value, type.shape, axes, keepdims)

    rule.__name__ = name
    return rule


max_ = handles(np.max, np.amax, methods=["max"])(_extremum(rd.reduce_max, "max"))
min_ = handles(np.min, np.amin, methods=["min"])(_extremum(rd.reduce_min, "min"))


@handles(np.ptp)
def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
    return max_(a, axis, keepdims=keepdims) - min_(a, axis, keepdims=keepdims)


def _position(primitive: Any, name: str) -> Callable[..., TracedArray]:
    def rule(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
        atom = lift(a)
        shape = type_of(atom).shape
        axes = normal_axes(axis if axis is None else normal_axis(axis, len(shape)), len(shape))
        if product_of(shape[k] for k in axes) == 0:
            raise ValueError(f"{name} of no elements has no value{at_user_line()}")
        value = require_trace().emit(primitive, _flattened_last(atom, axes))
        return _finish(value, shape, axes, keepdims)

    rule.__name__ = name
    return rule


argmax = handles(np.argmax, methods=["argmax"])(_position(rd.argmax, "argmax"))
argmin = handles(np.argmin, methods=["argmin"])(_position(rd.argmin, "argmin"))


@handles(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
    return sum_(wrap(as_mask(lift(a))), axis, keepdims=keepdims)


@handles(np.any, methods=["any"])
def any_(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
    return count_nonzero(a, axis, keepdims=keepdims) > 0


@handles(np.all, methods=["all"])
def all_(a: Any, axis: Any = None, *, keepdims: bool = False) -> TracedArray:
    zeros = wrap(require_trace().emit(ew.logical_not, as_mask(lift(a))))
    return sum_(zeros, axis, keepdims=keepdims) == 0


# --------------------------------------------------------------------------- along an axis


@handles(np.cumsum, methods=["cumsum"])
def cumsum(a: Any, axis: Any = None, dtype: Any = None) -> TracedArray:
    atom = lift(a)
    atom = cast(atom, dtype if dtype is not None else _summed_dtype(type_of(atom).dtype))
    emit = require_trace().emit
    if axis is None or type_of(atom).ndim == 0:
        atom = emit(sh.reshape, atom, shape=(type_of(atom).size,))
        axis = 0
    axis = normal_axis(axis, type_of(atom).ndim)
    return wrap(emit(rd.cumsum, atom, axis=axis, reverse=False))


@handles(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    a = traced(a)
    axis = normal_axis(axis, a.ndim)
    if prepend is not None or append is not None:
        ends = [None if e is None else _end_piece(e, a, axis) for e in (prepend, append)]
        pieces = [p for p in (ends[0], a, ends[1]) if p is not None]
        a = concatenate(pieces, axis=axis)
    compare = np.not_equal if a.dtype == np.bool_ else np.subtract
    before = (slice(None),) * axis
    a = wrap(lift(a))
    for _ in range(n):
        a = compare(a[(*before, slice(1, None))], a[(*before, slice(-1))])
    return a


def _end_piece(value: Any, a: TracedArray, axis: int) -> Any:
    value = traced(value)
    shape = tuple(1 if k == axis else n for k, n in enumerate(a.shape))
    return np.broadcast_to(value, shape) if value.ndim == 0 else value


@handles(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences for uniform spacings, one-sided ones of order 1 or 2 at the ends."""
    f = traced(f)
    axes = (
        tuple(range(f.ndim))
        if axis is None
        else tuple(
            normal_axis(k, f.ndim) for k in (axis if isinstance(axis, (tuple, list)) else (axis,))
        )
    )
    spacings = list(varargs) if len(varargs) > 1 else list(varargs or (1.0,)) * len(axes)
    if len(spacings) != len(axes) or any(np.ndim(h) for h in spacings):
        raise trace_error("np.gradient: one scalar spacing, or one for each axis, is supported")
    f = wrap(lift(f)) if f.dtype.kind in "fc" else wrap(cast(lift(f), np.float64))
    results = tuple(
        _gradient_along(f, h, k, edge_order) for h, k in zip(spacings, axes, strict=True)
    )
    return results[0] if len(results) == 1 else results


def _gradient_along(f: TracedArray, h: Any, axis: int, edge_order: int) -> TracedArray:
    if f.shape[axis] < edge_order + 1:
        raise ValueError(f"np.gradient: axis {axis} has too few points{at_user_line()}")
    g = f._transposed((axis, *(k for k in range(f.ndim) if k != axis)))
    inner = (g[2:] - g[:-2]) / (2.0 * h)
    if edge_order == 1:
        first, last = (g[1:2] - g[:1]) / h, (g[-1:] - g[-2:-1]) / h
    else:
        first = (-1.5 / h) * g[:1] + (2.0 / h) * g[1:2] + (-0.5 / h) * g[2:3]
        last = (0.5 / h) * g[-3:-2] + (-2.0 / h) * g[-2:-1] + (1.5 / h) * g[-1:]
    whole = concatenate([first, inner, last])
    back = (*range(1, axis + 1), 0, *range(axis + 1, f.ndim))
    return wrap(lift(whole._transposed(back)))
