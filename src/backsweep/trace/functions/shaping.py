"""Functions that give the same elements another shape: views where NumPy gives views.

Whether NumPy's reshape is a view depends on strides. `layout` asks NumPy itself: it
repeats the chain of views on an array that has the strides but no memory. A base
counts as C-contiguous, also where NumPy would keep the order of transposed operands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType
from backsweep.primitives import shape as sh
from backsweep.primitives.index import region
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import (
    cast,
    handles,
    normal_axes,
    normal_axis,
    normal_shape,
    traced,
)
from backsweep.trace.indexing import read_only
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.views import Part, Picked, ReadOnly, Region, Reshaped, Transposed


def layout(u: TracedArray) -> np.ndarray:
    """An array without memory that has the strides which NumPy's would have."""
    if u._base is None:
        strides = np.multiply.accumulate([u.itemsize, *u.shape[:0:-1]])[::-1] if u.ndim else ()
        return np.lib.stride_tricks.as_strided(np.empty(1, u.dtype), u.shape, tuple(strides))
    base = layout(u._base)
    match u._view:
        case Region(starts, steps, sizes):
            return base[region(starts, steps, sizes)]
        case Transposed(axes):
            return base.transpose(axes)
        case Reshaped(shape):
            return base.reshape(shape, copy=False)
        case Picked(indices):
            return base[(0,) * len(indices)]
        case ReadOnly(shape):
            return np.broadcast_to(base, shape)
        case Part(is_real):
            return base.real if is_real else base.imag
        case _:
            raise AssertionError(u._view)


def copied(u: TracedArray) -> TracedArray:
    return wrap(lift(u))


def reshaped(u: TracedArray, shape: tuple[int, ...], copy: bool | None = None) -> TracedArray:
    """A view if NumPy would make one."""
    if not copy and _reshapes_in_place(u, shape):
        return u._reshaped(shape)
    if copy is False:
        raise ValueError(f"this reshape cannot be done without a copy{at_user_line()}")
    return copied(u)._reshaped(shape)


def _reshapes_in_place(u: TracedArray, shape: tuple[int, ...]) -> bool:
    if u._base is None:
        return True
    try:
        layout(u).reshape(shape, copy=False)
    except ValueError:
        return False
    return True


def _full_shape(shape: Any, u: TracedArray) -> tuple[int, ...]:
    """The shape with -1 replaced."""
    wanted = normal_shape(shape)
    known = 1
    for n in wanted:
        known *= n if n != -1 else 1
    n_open = wanted.count(-1)
    if n_open == 1 and known and u.size % known == 0:
        wanted = tuple(u.size // known if n == -1 else n for n in wanted)
        known = u.size
    if n_open > 1 or known != u.size or min(wanted, default=0) < 0:
        raise ShapeError(f"{u.shape} cannot be reshaped to {shape}{at_user_line()}")
    return wanted


def _check_order(order: Any) -> bool:
    """True for Fortran order."""
    if order not in ("C", "F", None):
        raise trace_error(f"order={order!r} is not supported on traced values: use 'C' or 'F'")
    return bool(order == "F")


@handles(np.reshape)
def reshape(a: Any, shape: Any, order: Any = "C", *, copy: bool | None = None) -> TracedArray:
    u = traced(a)
    new = _full_shape(shape, u)
    if _check_order(order):
        return reshaped(u.T, new[::-1], copy).T
    return reshaped(u, new, copy)


@handles(methods=["reshape"])
def _reshape_method(
    self: TracedArray, *shape: Any, order: Any = "C", copy: bool | None = None
) -> TracedArray:
    return reshape(self, shape[0] if len(shape) == 1 else shape, order, copy=copy)


@handles(np.ravel, methods=["ravel"])
def ravel(a: Any, order: Any = "C") -> TracedArray:
    """A view of what is contiguous; a strided row, of which reshape is a view, is copied."""
    u = traced(a)
    u = u.T if _check_order(order) else u
    is_view = u._base is None or layout(u).flags.c_contiguous
    return (u if is_view else copied(u))._reshaped((u.size,))


@handles(methods=["flatten"])
def flatten(a: Any, order: Any = "C") -> TracedArray:
    return copied(reshape(a, -1, order))


@handles(np.transpose)
def transpose(a: Any, axes: Any = None) -> TracedArray:
    u = traced(a)
    if axes is None:
        return u.T
    order = tuple(normal_axis(k, u.ndim) for k in axes)
    if sorted(order) != list(range(u.ndim)):
        raise ShapeError(f"transpose: axes {axes} do not fit {u.shape}{at_user_line()}")
    return u._transposed(order)


@handles(methods=["transpose"])
def _transpose_method(self: TracedArray, *axes: Any) -> TracedArray:
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        return transpose(self, axes[0])
    return transpose(self, axes or None)


@handles(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any) -> TracedArray:
    return swapaxes(x, -1, -2)


@handles(np.swapaxes, methods=["swapaxes"])
def swapaxes(a: Any, axis1: int, axis2: int) -> TracedArray:
    u = traced(a)
    order = list(range(u.ndim))
    i, j = normal_axis(axis1, u.ndim), normal_axis(axis2, u.ndim)
    order[i], order[j] = order[j], order[i]
    return u._transposed(tuple(order))


@handles(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> TracedArray:
    u = traced(a)
    pairs = [s if isinstance(s, (tuple, list)) else (s,) for s in (source, destination)]
    sources, targets = ([normal_axis(k, u.ndim) for k in items] for items in pairs)
    order = [k for k in range(u.ndim) if k not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return u._transposed(tuple(order))


@handles(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> TracedArray:
    u = traced(a)
    order = list(np.rollaxis(np.empty(range(u.ndim)), axis, start).shape)
    return u._transposed(tuple(order))


@handles(np.squeeze, methods=["squeeze"])
def squeeze(a: Any, axis: Any = None) -> TracedArray:
    u = traced(a)
    axes = normal_axes(axis, u.ndim)
    if axis is not None and any(u.shape[k] != 1 for k in axes):
        raise ShapeError(f"squeeze: axis {axis} of {u.shape} is longer than 1{at_user_line()}")
    return u._reshaped(tuple(n for k, n in enumerate(u.shape) if n != 1 or k not in axes))


@handles(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> TracedArray:
    u = traced(a)
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = normal_axes(tuple(items), u.ndim + len(items))
    rest = iter(u.shape)
    return u._reshaped(tuple(1 if k in axes else next(rest) for k in range(u.ndim + len(items))))


def _at_least(n: int, *arrays: Any) -> Any:
    results = []
    for a in arrays:
        u = traced(a)
        if u.ndim >= n:
            results.append(u)
        elif n == 3:
            results.append(u._reshaped(np.atleast_3d(np.empty(u.shape)).shape))
        else:
            results.append(u._reshaped((1,) * (n - u.ndim) + u.shape))
    return results[0] if len(results) == 1 else tuple(results)


@handles(np.atleast_1d)
def atleast_1d(*arrays: Any) -> Any:
    return _at_least(1, *arrays)


@handles(np.atleast_2d)
def atleast_2d(*arrays: Any) -> Any:
    return _at_least(2, *arrays)


@handles(np.atleast_3d)
def atleast_3d(*arrays: Any) -> Any:
    return _at_least(3, *arrays)


@handles(np.broadcast_to)
def broadcast_to(array: Any, shape: Any) -> TracedArray:
    u, new = traced(array), normal_shape(shape)
    try:
        fits = np.broadcast_shapes(u.shape, new) == new
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"{u.shape} cannot be broadcast to {new}{at_user_line()}")
    return read_only(u, new)


@handles(np.broadcast_arrays)
def broadcast_arrays(*args: Any) -> tuple[TracedArray, ...]:
    arrays = [traced(a) for a in args]
    shape = np.broadcast_shapes(*(u.shape for u in arrays))
    return tuple(broadcast_to(u, shape) for u in arrays)


@handles(np.flip)
def flip(m: Any, axis: Any = None) -> TracedArray:
    u = traced(m)
    axes = normal_axes(axis, u.ndim)
    return u[tuple(slice(None, None, -1 if k in axes else None) for k in range(u.ndim))]


@handles(np.flipud)
def flipud(m: Any) -> TracedArray:
    return flip(m, 0)


@handles(np.fliplr)
def fliplr(m: Any) -> TracedArray:
    return flip(m, 1)


@handles(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> TracedArray:
    u = traced(m)
    match k % 4:
        case 0:
            return u[...]
        case 1:
            return swapaxes(flip(u, axes[1]), *axes)
        case 2:
            return flip(u, tuple(axes))
        case _:
            return flip(swapaxes(u, *axes), axes[1])


@handles(np.diagonal, methods=["diagonal"])
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> TracedArray:
    """A read-only view: every (m + 1)-th element of the flattened matrix."""
    return read_only(_diagonal(traced(a), offset, axis1, axis2))


def _diagonal(u: TracedArray, offset: int, axis1: int, axis2: int) -> TracedArray:
    i, j = normal_axis(axis1, u.ndim), normal_axis(axis2, u.ndim)
    if i == j:
        raise ValueError(f"diagonal: axis1 and axis2 are both {i}{at_user_line()}")
    n, m = u.shape[i], u.shape[j]
    start = offset if offset >= 0 else -offset * m
    size = max(0, min(n, m - offset) if offset >= 0 else min(n + offset, m))
    rest = tuple(k for k in range(u.ndim) if k not in (i, j))
    flat = u._transposed((*rest, i, j))._reshaped((*(u.shape[k] for k in rest), n * m))
    return flat[..., start : start + size * (m + 1) : m + 1][..., :size]


@handles(np.diag)
def diag(v: Any, k: int = 0) -> TracedArray:
    u = traced(v)
    if u.ndim == 2:
        return diagonal(u, k)
    n = u.size + abs(k)
    out = wrap(sh.zeros(require_trace().builder, ArrayType((n, n), u.dtype)))
    np.add.at(out, (np.arange(u.size) + max(-k, 0), np.arange(u.size) + max(k, 0)), u)
    return out


@handles(np.copy, methods=["copy", "__copy__", "__deepcopy__"])
def copy(a: Any, order: Any = "C", subok: bool = False) -> TracedArray:
    return copied(traced(a))


@handles(np.astype, methods=["astype"])
def astype(
    x: Any,
    dtype: Any,
    order: Any = "K",
    casting: str = "unsafe",
    subok: bool = True,
    copy: bool = True,
) -> TracedArray:
    u = traced(x)
    if not copy and np.dtype(dtype) == u.dtype:
        return u
    return wrap(cast(lift(u), dtype))


@handles(np.shape)
def shape_(a: Any) -> tuple[int, ...]:
    return traced(a).shape


@handles(np.ndim)
def ndim(a: Any) -> int:
    return traced(a).ndim


@handles(np.size)
def size(a: Any, axis: Any = None) -> int:
    u = traced(a)
    return u.size if axis is None else u.shape[normal_axis(axis, u.ndim)]


@handles(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    return traced(x).dtype.kind == "c"


@handles(np.isrealobj)
def isrealobj(x: Any) -> bool:
    return traced(x).dtype.kind != "c"
