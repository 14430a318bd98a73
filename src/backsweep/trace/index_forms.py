"""What an index means: a region of an array, or index arrays on some of its axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.ir import Var
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.views import Region


@dataclass(frozen=True, slots=True)
class Basic:
    """An index of integers, slices and new axes."""

    region: Region
    shape: tuple[int, ...]
    """After integers are dropped and new axes inserted."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """Index arrays on some axes, slices on the others."""

    region: Region
    axes: tuple[int, ...]
    """The axes with index arrays."""
    indices: tuple[Any, ...]
    rest_shape: tuple[int, ...]
    """Extents of the other dimensions of the result, new axes included."""
    position: int
    """Where among them the dimensions of the index arrays stand."""
    unique: bool


def _is_array_index(item: Any) -> bool:
    return isinstance(item, (np.ndarray, TracedArray, list)) and not (
        isinstance(item, np.ndarray) and item.ndim == 0 and item.dtype.kind in "iu"
    )


def _expand(index: Any, ndim: int) -> list[Any]:
    """A full list of items: no Ellipsis, masks as index arrays."""
    items = list(index) if isinstance(index, tuple) else [index]
    flat: list[Any] = []
    for item in items:
        if isinstance(item, list):
            item = np.asarray(item)
        if isinstance(item, (bool, np.bool_)):
            raise trace_error("a single boolean as an index is not supported")
        is_mask = getattr(item, "dtype", None) == np.bool_ and getattr(item, "ndim", 0) > 0
        if is_mask and isinstance(item, TracedArray):
            raise trace_error(
                "u[mask] with a traced mask has no size that is known while tracing: use "
                "np.where(mask, u, 0), or write u[mask] = value"
            )
        flat += list(np.nonzero(item)) if is_mask else [item]
    n_used = sum(item is not None and item is not Ellipsis for item in flat)
    if n_used > ndim:
        raise IndexError(f"too many indices: {n_used} for {ndim} dimensions{at_user_line()}")
    fill = [slice(None)] * (ndim - n_used)
    where = [k for k, item in enumerate(flat) if item is Ellipsis]
    if where:
        return [*flat[: where[0]], *fill, *flat[where[0] + 1 :]]
    return flat + fill


def _integer(item: Any, extent: int) -> int:
    k = int(item)
    if not -extent <= k < extent:
        raise IndexError(f"index {k} is out of bounds for an extent of {extent}{at_user_line()}")
    return k % extent


def parse(index: Any, shape: tuple[int, ...]) -> Basic | Advanced:
    """Split an index into a region, index arrays and the shape of the result."""
    items = _expand(index, len(shape))
    if any(_is_array_index(item) for item in items):
        return _parse_advanced(items, shape)
    starts, steps, sizes, kept = [], [], [], []
    axis = 0
    for item in items:
        if item is None:
            kept.append(1)
            continue
        extent = shape[axis]
        if isinstance(item, slice):
            start, step, size = _slice_region(item, extent)
            kept.append(size)
        else:
            start, step, size = _integer(item, extent), 1, 1
        starts.append(start)
        steps.append(step)
        sizes.append(size)
        axis += 1
    return Basic(Region(tuple(starts), tuple(steps), tuple(sizes)), tuple(kept))


def _slice_region(item: slice, extent: int) -> tuple[int, int, int]:
    try:
        start, stop, step = item.indices(extent)
    except TypeError:
        raise trace_error(
            "a slice has a traced bound: its size would depend on values; use an index array "
            "u[i + np.arange(n)] of fixed size instead"
        ) from None
    size = len(range(start, stop, step))
    return (start if size else 0), step, size


def _parse_advanced(items: list[Any], shape: tuple[int, ...]) -> Advanced:
    starts, steps, sizes, axes, raw, rest = [], [], [], [], [], []
    places: list[int] = []
    axis = 0
    for item in items:
        if item is None:
            rest.append(1)
            continue
        extent = shape[axis]
        if isinstance(item, slice):
            start, step, size = _slice_region(item, extent)
            rest.append(size)
        else:
            start, step, size = 0, 1, extent
            axes.append(axis)
            raw.append((item, extent))
            places.append(len(rest))
        starts.append(start)
        steps.append(step)
        sizes.append(size)
        axis += 1
    adjacent = len(set(places)) == 1 and axes == list(range(axes[0], axes[0] + len(axes)))
    indices, unique = _index_atoms(raw)
    region = Region(tuple(starts), tuple(steps), tuple(sizes))
    position = places[0] if adjacent else 0
    return Advanced(region, tuple(axes), indices, tuple(rest), position, unique)


def _index_atoms(raw: list[tuple[Any, int]]) -> tuple[tuple[Any, ...], bool]:
    """Index arrays as int64 atoms of one shape, and whether no element is named twice."""
    if all(not isinstance(item, TracedArray) for item, _ in raw):
        arrays = []
        for item, extent in raw:
            array = np.asarray(item)
            if array.dtype.kind not in "iu" and array.size:
                raise IndexError(
                    f"index arrays must be integers, not {array.dtype}{at_user_line()}"
                )
            array = array.astype(np.int64)
            if array.size and (array.min() < -extent or array.max() >= extent):
                raise IndexError(
                    f"an index array runs from {array.min()} to {array.max()}, out of bounds for "
                    f"an extent of {extent}{at_user_line()}"
                )
            arrays.append(np.where(array < 0, array + extent, array))
        arrays = [np.array(a, order="C") for a in np.broadcast_arrays(*arrays)]
        flat = np.ravel_multi_index(tuple(arrays), tuple(e for _, e in raw)).reshape(-1)
        unique = np.unique(flat).size == flat.size
        return tuple(capture_indices(a, k) for k, a in enumerate(arrays)), unique
    handles = []
    for item, extent in raw:
        value = item if isinstance(item, TracedArray) else wrap(lift(np.asarray(item)))
        if value.dtype.kind not in "iu":
            raise IndexError(f"index arrays must be integers, not {value.dtype}{at_user_line()}")
        value = value.astype(np.int64)
        handles.append(np.where(value < 0, value + extent, value))
    shape = np.broadcast_shapes(*(h.shape for h in handles))
    builder = require_trace().builder
    atoms = []
    for h in handles:
        atom = h._read()
        if not isinstance(atom, Var):
            atom = sh.full(builder, atom, shape)
        atoms.append(sh.broadcast_to(builder, atom, shape))
    return tuple(atoms), shape == ()


def capture_indices(array: np.ndarray, axis: int) -> Any:
    """Index arrays are data: they enter the program as inputs, never as constants."""
    trace = require_trace()
    flat = trace.capture_plain(trace.pooled(np.atleast_1d(array), axis))
    return flat if array.ndim else trace.emit(sh.reshape, flat, shape=())
