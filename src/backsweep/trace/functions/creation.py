"""New arrays: by shape, from sequences, with `like=`."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Literal
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import (
    broadcast,
    cast,
    fill,
    handles,
    normal_shape,
    traced,
    type_of,
)
from backsweep.trace.functions.joining import stack
from backsweep.trace.functions.shaping import astype, copied, moveaxis
from backsweep.trace.indexing import read_only
from backsweep.trace.tracing import require_trace


def _filled(shape: Any, number: Any, dtype: Any) -> TracedArray:
    literal = Literal(number, ArrayType((), np.dtype(dtype if dtype is not None else float)))
    return wrap(fill(literal, normal_shape(shape)))


@handles(np.zeros)
def zeros(shape: Any, dtype: Any = None, order: Any = "C") -> TracedArray:
    return _filled(shape, 0, dtype)


@handles(np.empty)
def empty(shape: Any, dtype: Any = None, order: Any = "C") -> TracedArray:
    return _filled(shape, 0, dtype)


@handles(np.ones)
def ones(shape: Any, dtype: Any = None, order: Any = "C") -> TracedArray:
    return _filled(shape, 1, dtype)


@handles(np.full)
def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> TracedArray:
    atom = lift(fill_value)
    atom = cast(atom, dtype if dtype is not None else type_of(atom).dtype)
    return wrap(broadcast(atom, normal_shape(shape)))


def _like(a: Any, dtype: Any, shape: Any) -> tuple[Any, Any]:
    u = traced(a)
    return (u.shape if shape is None else shape), (u.dtype if dtype is None else dtype)


@handles(np.zeros_like, np.empty_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None
) -> TracedArray:
    shape, dtype = _like(a, dtype, shape)
    return _filled(shape, 0, dtype)


@handles(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None
) -> TracedArray:
    shape, dtype = _like(a, dtype, shape)
    return _filled(shape, 1, dtype)


@handles(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: bool = True,
    shape: Any = None,
) -> TracedArray:
    shape, dtype = _like(a, dtype, shape)
    return full(shape, fill_value, dtype)


def contains_traced(value: Any) -> bool:
    """Whether a traced value stands in nested sequences."""
    if isinstance(value, (list, tuple)):
        return any(contains_traced(v) for v in value)
    return isinstance(value, TracedArray)


def data(array: np.ndarray) -> TracedArray:
    """A plain array that was made here as a value of the program."""
    if array.ndim == 0:
        return wrap(lift(array))
    trace = require_trace()
    return wrap(trace.capture_plain(trace.pooled(array, 0)))


@handles(np.array)
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> TracedArray:
    """Nested sequences of traced and plain numbers and arrays."""
    if isinstance(object, TracedArray):
        result = copied(object) if copy else object
    elif contains_traced(object):
        result = stack([array(v) for v in object])
    else:
        result = data(np.array(object, dtype))
    if dtype is not None:
        result = astype(result, dtype, copy=False)
    if result.ndim < ndmin:
        result = result._reshaped((1,) * (ndmin - result.ndim) + result.shape)
    return result


@handles(np.asarray, np.asanyarray, np.ascontiguousarray)
def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None) -> TracedArray:
    """A plain array is not copied: its traced form is read-only."""
    if isinstance(a, np.ndarray) and a.ndim and not copy and dtype in (None, a.dtype):
        return read_only(wrap(lift(a)))
    return array(a, dtype, copy=bool(copy))


@handles(np.arange)
def arange(*args: Any, **kwargs: Any) -> TracedArray:
    return data(np.arange(*args, **kwargs))


@handles(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    if not contains_traced([start, stop]):
        options: Any = {"endpoint": endpoint, "retstep": retstep, "dtype": dtype, "axis": axis}
        made = np.linspace(start, stop, num, **options)
        return (data(made[0]), made[1]) if retstep else data(made)
    start, stop = traced(start), traced(stop)
    step = (stop - start) / (num - 1 if endpoint else num)
    line = np.arange(num).reshape(-1, *(1,) * step.ndim)
    values = astype(start + step * line, dtype or np.result_type(start, stop, 0.0))
    if endpoint and num > 1:
        values[-1] = stop
    values = values if axis == 0 else copied(moveaxis(values, 0, axis))
    return (values, step) if retstep else values


@handles(np.eye)
def eye(N: int, M: Any = None, k: int = 0, dtype: Any = float, order: Any = "C") -> TracedArray:
    return data(np.eye(N, M, k, dtype))


@handles(np.identity)
def identity(n: int, dtype: Any = None) -> TracedArray:
    return data(np.identity(n, dtype))
