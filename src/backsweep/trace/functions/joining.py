"""Joining, splitting, repeating, padding, rolling, taking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import Atom
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import (
    broadcast,
    cast,
    dense,
    handles,
    normal_axes,
    normal_axis,
    traced,
    type_of,
    unify,
)
from backsweep.trace.functions.shaping import atleast_1d, atleast_2d, atleast_3d, copied, ravel
from backsweep.trace.tracing import at_user_line, require_trace, trace_error

_MAX_RUNS = 8
"""A rearrangement of more pieces than this is a gather instead of slices."""


def join(atoms: list[Atom], axis: int) -> TracedArray:
    """Atoms of one dtype, one after the other along an axis."""
    axis = normal_axis(axis, type_of(atoms[0]).ndim)
    variables = [dense(a) for a in atoms]
    if len(variables) == 1:
        return wrap(variables[0])
    try:
        return wrap(require_trace().emit(ix.concatenate, *variables, axis=axis))
    except ShapeError as error:
        raise ShapeError(f"{error}{at_user_line()}") from None


@handles(np.concatenate)
def concatenate(arrays: Any, axis: Any = 0, dtype: Any = None, casting: Any = None) -> TracedArray:
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [ravel(traced(a)) for a in arrays], 0
    if any(np.ndim(a) == 0 for a in arrays):
        raise ShapeError(f"scalars cannot be concatenated: use np.stack{at_user_line()}")
    atoms = unify(arrays, keep_weak=False)
    return join([cast(a, dtype) for a in atoms] if dtype is not None else atoms, axis)


@handles(np.stack)
def stack(arrays: Any, axis: int = 0, dtype: Any = None, casting: Any = None) -> TracedArray:
    atoms = unify(arrays, keep_weak=False)
    shapes = {type_of(a).shape for a in atoms}
    if len(shapes) != 1:
        raise ShapeError(f"stack: the shapes differ: {sorted(shapes)}{at_user_line()}")
    shape = list(shapes.pop())
    axis = normal_axis(axis, len(shape) + 1)
    shape.insert(axis, 1)
    emit = require_trace().emit
    atoms = [emit(sh.reshape, dense(a), shape=tuple(shape)) for a in atoms]
    return join([cast(a, dtype) for a in atoms] if dtype is not None else atoms, axis)


def _all(function: Any, arrays: Iterable[Any]) -> list[TracedArray]:
    return [function(a) for a in arrays]


@handles(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = None) -> TracedArray:
    return concatenate(_all(atleast_2d, tup), 0, dtype)


@handles(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = None) -> TracedArray:
    arrays = _all(atleast_1d, tup)
    return concatenate(arrays, 0 if arrays[0].ndim == 1 else 1, dtype)


@handles(np.dstack)
def dstack(tup: Any, *, dtype: Any = None, casting: Any = None) -> TracedArray:
    return concatenate(_all(atleast_3d, tup), 2, dtype)


@handles(np.column_stack)
def column_stack(tup: Any) -> TracedArray:
    arrays = [traced(a) for a in tup]
    return concatenate([u if u.ndim > 1 else atleast_2d(u).T for u in arrays], 1)


@handles(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> TracedArray:
    return concatenate([arr, values], axis)


# --------------------------------------------------------------------------- splitting


@handles(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[TracedArray]:
    """Views, as NumPy's."""
    u = traced(ary)
    axis = normal_axis(axis, u.ndim)
    lines = np.array_split(np.arange(u.shape[axis]), indices_or_sections)
    before = (slice(None),) * axis
    at = [0, *np.cumsum([len(line) for line in lines])]
    if np.ndim(indices_or_sections) == 1:
        cuts = [None, *(int(i) for i in indices_or_sections), None]
        return [u[(*before, slice(*cuts[k : k + 2]))] for k in range(len(lines))]
    return [u[(*before, slice(int(at[k]), int(at[k + 1])))] for k in range(len(lines))]


@handles(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[TracedArray]:
    n = np.shape(ary)[axis]
    if np.ndim(indices_or_sections) == 0 and n % indices_or_sections:
        raise ValueError(f"{n} elements do not split into {indices_or_sections}{at_user_line()}")
    return array_split(ary, indices_or_sections, axis)


@handles(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[TracedArray]:
    return split(ary, indices_or_sections, 0)


@handles(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[TracedArray]:
    return split(ary, indices_or_sections, 0 if np.ndim(ary) == 1 else 1)


# --------------------------------------------------------------------------- rearranging


def _runs(positions: np.ndarray) -> list[tuple[int, int, int]]:
    """Maximal pieces of equal step -1, 0 or 1 as (start, step, size)."""
    runs: list[tuple[int, int, int]] = []
    k = 0
    while k < len(positions):
        end, step = k + 1, 1
        if end < len(positions) and abs(positions[end] - positions[k]) <= 1:
            step = int(positions[end] - positions[k])
            while end < len(positions) and positions[end] - positions[end - 1] == step:
                end += 1
        runs.append((int(positions[k]), step, end - k))
        k = end
    return runs


def rearrange(u: TracedArray, axis: int, positions: np.ndarray) -> TracedArray:
    """`np.take(u, positions, axis)` with known positions: slices where they are few."""
    if np.array_equal(positions, np.arange(u.shape[axis])):
        return copied(u)
    before = (slice(None),) * axis
    runs = _runs(positions)
    if not 0 < len(runs) <= _MAX_RUNS:
        return u[(*before, positions)]
    return join([_run(u, axis, run) for run in runs], axis)


def _run(u: TracedArray, axis: int, run: tuple[int, int, int]) -> Atom:
    start, step, size = run
    n_read = size if step else 1
    shape = tuple(n_read if k == axis else n for k, n in enumerate(u.shape))
    starts = tuple(start if k == axis else 0 for k in range(u.ndim))
    steps = tuple((step or 1) if k == axis else 1 for k in range(u.ndim))
    piece = require_trace().emit(ix.slice_, lift(u), starts=starts, steps=steps, sizes=shape)
    wide = tuple(size if k == axis else n for k, n in enumerate(u.shape))
    return broadcast(piece, wide)


@handles(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> TracedArray:
    u = traced(a)
    if axis is None:
        flat = roll(ravel(u), int(np.sum(shift)), 0)
        return copied(flat._reshaped(u.shape))
    pairs = np.broadcast(shift, axis)
    shifts: dict[int, int] = {}
    for n, k in pairs:
        k = normal_axis(k, u.ndim)
        shifts[k] = shifts.get(k, 0) + int(n)
    u = copied(u)
    for k, n in shifts.items():
        u = rearrange(u, k, np.roll(np.arange(u.shape[k]), n))
    return u


@handles(np.tile)
def tile(A: Any, reps: Any) -> TracedArray:
    u = traced(A)
    counts = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    ndim = max(len(counts), u.ndim)
    counts = (1,) * (ndim - len(counts)) + tuple(int(n) for n in counts)
    shape = (1,) * (ndim - u.ndim) + u.shape
    wide = tuple(n for pair in zip(counts, shape, strict=True) for n in pair)
    single = tuple(n for extent in shape for n in (1, extent))
    value = broadcast(lift(copied(u)._reshaped(single)), wide)
    total = tuple(n * c for n, c in zip(shape, counts, strict=True))
    return wrap(require_trace().emit(sh.reshape, value, shape=total))


@handles(np.repeat, methods=["repeat"])
def repeat(a: Any, repeats: Any, axis: Any = None) -> TracedArray:
    u = traced(a)
    if axis is None:
        u, axis = ravel(u), 0
    axis = normal_axis(axis, u.ndim)
    if isinstance(repeats, TracedArray):
        raise trace_error("np.repeat: the number of repeats must be known while tracing")
    if np.ndim(repeats) > 0 and np.size(repeats) > 1:
        return rearrange(u, axis, np.repeat(np.arange(u.shape[axis]), repeats))
    count = int(np.reshape(repeats, ()))
    new = (*u.shape[: axis + 1], count, *u.shape[axis + 1 :])
    dims = (*range(axis + 1), *range(axis + 2, u.ndim + 1))
    emit = require_trace().emit
    wide = emit(sh.broadcast, lift(u), shape=new, dims=dims)
    total = tuple(n * count if k == axis else n for k, n in enumerate(u.shape))
    return wrap(emit(sh.reshape, wide, shape=total))


@handles(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", constant_values: Any = 0) -> Any:
    u = traced(array)
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(k, pad_width.get(k - u.ndim, 0)) for k in range(u.ndim)]
        pad_width = [w if isinstance(w, tuple) else (w, w) for w in pad_width]
    widths = np.broadcast_to(np.asarray(pad_width, int), (u.ndim, 2))
    if mode in ("edge", "wrap", "reflect", "symmetric"):
        for k in range(u.ndim):
            line = np.arange(u.shape[k])
            u = rearrange(u, k, np.pad(line, tuple(widths[k]), mode))
        return copied(u)
    if mode != "constant":
        raise trace_error(
            f"np.pad: mode {mode!r} is not supported; constant, edge, wrap, reflect, symmetric are"
        )
    starts = tuple(int(w) for w in widths[:, 0])
    shape = tuple(int(n + w.sum()) for n, w in zip(u.shape, widths, strict=True))
    steps, emit = (1,) * u.ndim, require_trace().emit
    if isinstance(constant_values, TracedArray) or np.ndim(constant_values) == 0:
        constant = cast(lift(constant_values), u.dtype)
        if not isinstance(constant_values, TracedArray) and constant_values == 0:
            return wrap(emit(ix.pad, lift(u), shape=shape, starts=starts, steps=steps))
        base = broadcast(constant, shape)
        return wrap(emit(ix.update, base, lift(u), starts=starts, steps=steps))
    ends = np.broadcast_to(constant_values, (u.ndim, 2))
    for k in range(u.ndim):
        u = _pad_axis(u, k, widths[k], ends[k])
    return u


def _pad_axis(u: TracedArray, axis: int, widths: Any, ends: Any) -> TracedArray:
    pieces: list[Atom] = [lift(u)]
    for width, value, at in ((widths[0], ends[0], 0), (widths[1], ends[1], 2)):
        shape = tuple(int(width) if k == axis else n for k, n in enumerate(u.shape))
        pieces.insert(at, broadcast(cast(lift(value), u.dtype), shape))
    return join(pieces, axis)


@handles(np.take, methods=["take"])
def take(a: Any, indices: Any, axis: Any = None, mode: Any = "raise") -> TracedArray:
    u = traced(a)
    if mode != "raise":
        raise trace_error(f"np.take: mode {mode!r} is not supported; wrap the indices with %")
    if axis is None:
        u, axis = ravel(u), 0
    if not isinstance(indices, TracedArray):
        indices = np.asarray(indices)
        indices = indices.astype(np.int64) if indices.size == 0 else indices
    index = (*(slice(None),) * normal_axis(axis, u.ndim), indices)
    return copied(u[index])


@handles(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> TracedArray:
    u = traced(arr)
    if axis is None:
        u, axis = ravel(u), 0
    axis = normal_axes(axis, u.ndim)[0]
    shape = indices.shape
    index = [
        np.arange(shape[k] if k != axis else 1).reshape(
            [-1 if j == k else 1 for j in range(u.ndim)]
        )
        for k in range(u.ndim)
    ]
    return u[tuple(indices if k == axis else i for k, i in enumerate(index))]


@handles(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    arrays = [ravel(traced(x)) for x in xi]
    n = len(arrays)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    grids = []
    for u, axis in zip(arrays, order, strict=True):
        grids.append(u._reshaped(tuple(u.size if k == axis else 1 for k in range(n))))
    shape = np.broadcast_shapes(*(g.shape for g in grids))
    return tuple(copied(g) if sparse else wrap(broadcast(lift(g), shape)) for g in grids)
