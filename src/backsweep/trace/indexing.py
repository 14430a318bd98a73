"""Reading and writing by index, with NumPy's rules."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Var
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as ga
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.ufuncs import _fit
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
        return tuple(capture_indices(a) for a in arrays), unique
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


def capture_indices(array: np.ndarray) -> Any:
    """Index arrays are data: they enter the program as inputs, never as constants."""
    trace = require_trace()
    flat = trace.capture_plain(trace.pooled(np.atleast_1d(array)))
    return flat if array.ndim else trace.emit(sh.reshape, flat, shape=())


# --------------------------------------------------------------------------- reading


def get_item(u: TracedArray, index: Any) -> Any:
    """`u[index]`: a view for basic indices, a copy for index arrays, a value for a point."""
    if _is_full_integer(index, u.ndim):
        parsed: Basic | Advanced = _point(index, u.shape)
    else:
        parsed = parse(index, u.shape)
    if isinstance(parsed, Advanced):
        return wrap(_gather(u, parsed))
    return _view(u, parsed)


def _is_full_integer(index: Any, ndim: int) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return (
        ndim > 0
        and len(items) == ndim
        and all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in items)
    )


def _point(index: Any, shape: tuple[int, ...]) -> Advanced:
    items = index if isinstance(index, tuple) else (index,)
    arrays = [(np.asarray(_integer(i, n)), n) for i, n in zip(items, shape, strict=True)]
    indices, _ = _index_atoms(arrays)
    n = len(shape)
    return Advanced(Region((0,) * n, (1,) * n, shape), tuple(range(n)), indices, (), 0, True)


def _is_whole(region: Region, shape: tuple[int, ...]) -> bool:
    return region.sizes == shape and all(s == 1 for s in region.steps)


def _view(u: TracedArray, basic: Basic) -> TracedArray:
    region = basic.region
    view = u
    if not _is_whole(region, u.shape) or basic.shape == u.shape:
        view = view._make_view(region, u._type.with_shape(region.sizes))
    if basic.shape != region.sizes:
        view = view._reshaped(basic.shape)
    return view


def _arranged(u: TracedArray, a: Advanced) -> TracedArray:
    """A view with the region applied and the indexed axes in front."""
    view = u
    if not _is_whole(a.region, u.shape):
        view = view._make_view(a.region, u._type.with_shape(a.region.sizes))
    order = (*a.axes, *(k for k in range(u.ndim) if k not in a.axes))
    return view if order == tuple(range(u.ndim)) else view._transposed(order)


def _points_shape(a: Advanced) -> tuple[int, ...]:
    return a.indices[0].type.shape  # type: ignore[no-any-return]


def _gather(u: TracedArray, a: Advanced) -> Atom:
    emit = require_trace().emit
    source = lift(_arranged(u, a))
    value = emit(ga.gather, source, *a.indices, unique=a.unique)
    return _place(emit, value, a)


def _place(emit: Any, value: Atom, a: Advanced) -> Atom:
    """From (points, rest) to NumPy's order of the result's dimensions."""
    points = _points_shape(a)
    n = len(points)
    value = emit(sh.reshape, value, shape=(*points, *a.rest_shape))
    rest = list(range(n, n + len(a.rest_shape)))
    axes = (*rest[: a.position], *range(n), *rest[a.position :])
    return emit(sh.transpose, value, axes=axes)  # type: ignore[no-any-return]


def _displace(emit: Any, value: Atom, a: Advanced, target: tuple[int, ...]) -> Atom:
    """The inverse of `_place`, for values to write."""
    points = _points_shape(a)
    n, p = len(points), a.position
    n_rest = len(a.rest_shape)
    axes = (*range(p, p + n), *range(p), *range(p + n, n + n_rest))
    value = emit(sh.transpose, value, axes=axes)
    return emit(sh.reshape, value, shape=target)  # type: ignore[no-any-return]


def _result_shape(a: Advanced) -> tuple[int, ...]:
    rest = a.rest_shape
    return (*rest[: a.position], *_points_shape(a), *rest[a.position :])


# --------------------------------------------------------------------------- writing


def set_item(u: TracedArray, index: Any, value: Any) -> None:
    """`u[index] = value`"""
    u._check_writable()
    if isinstance(index, TracedArray) and index.dtype == np.bool_:
        _set_masked(u, index, value)
        return
    is_point = _is_full_integer(index, u.ndim)
    parsed = _point(index, u.shape) if is_point else parse(index, u.shape)
    if isinstance(parsed, Advanced):
        _set_points(u, parsed, value)
        return
    if _is_same_view(u, parsed, value):
        return
    target = _view(u, parsed)
    target._write(_fit(lift(value), target))


def _is_same_view(u: TracedArray, basic: Basic, value: Any) -> bool:
    """`u[s] += v` ends by writing the view u[s] onto itself."""
    if not isinstance(value, TracedArray) or value.shape != basic.shape:
        return False
    chain = value
    if chain._base is not u and chain._base is not None and chain._view is not None:
        if getattr(chain._view, "shape", None) != basic.shape:
            return False
        chain = chain._base
    return chain._base is u and chain._view == basic.region


def _set_masked(u: TracedArray, mask: TracedArray, value: Any) -> None:
    if np.ndim(value) > 0 and np.shape(value) != u.shape:
        raise trace_error(
            "u[mask] = values with as many values as the mask has True is not supported; use a "
            "scalar, or a value of u's shape"
        )
    if mask.shape != u.shape[: mask.ndim]:
        raise ShapeError(f"a mask of shape {mask.shape} on shape {u.shape}{at_user_line()}")
    emit, builder = u._trace.emit, u._trace.builder
    wide = lift(mask)
    if mask.shape != u.shape:
        wide = emit(sh.broadcast, wide, shape=u.shape, dims=tuple(range(mask.ndim)))
    new = _fit(lift(value), u)
    u._write(builder(ew.select, wide, new, u._read()))


def _set_points(u: TracedArray, a: Advanced, value: Any) -> None:
    emit = u._trace.emit
    view = _arranged(u, a)
    base = view._read()
    shape = _result_shape(a)
    scratch = TracedArray(u._trace, None, None, None, u._type.with_shape(shape))
    placed = _fit(lift(value), scratch)
    target = ga._type_gather({}, base.type, *(i.type for i in a.indices)).shape  # type: ignore
    added = _increment(u, base, a, placed)
    if added is not None and a.unique:
        new = emit(ga.scatter_add, base, _displace(emit, added, a, target), *a.indices, unique=True)
    else:
        if added is not None and not a.unique:
            warnings.warn(
                "u[i] += v with an element named twice: as in NumPy the last one wins; "
                f"np.add.at(u, i, v) adds them all{at_user_line()}",
                stacklevel=4,
            )
        flat = _displace(emit, placed, a, target)
        new = emit(ga.scatter, base, flat, *a.indices, unique=a.unique)
    view._write(new)


def _increment(u: TracedArray, base: Atom, a: Advanced, value: Atom) -> Atom | None:
    """v where the value to write is u[i] + v, read from the same u at the same points."""
    equations = u._trace.builder.equations
    defined = {eqn.outputs[0]: eqn for eqn in equations[-64:]}

    def producer(atom: Any) -> Any:
        return defined.get(atom) if isinstance(atom, Var) else None

    def is_read(atom: Any) -> bool:
        eqn = producer(atom)
        while eqn is not None and eqn.primitive in (sh.reshape, sh.transpose):
            atom = eqn.inputs[0]
            eqn = producer(atom)
        if eqn is None or eqn.primitive is not ga.gather:
            return False
        return _same(eqn.inputs[0], base) and all(
            _same(x, y) for x, y in zip(eqn.inputs[1:], a.indices, strict=False)
        )

    def _same(x: Any, y: Any) -> bool:
        if x is y:
            return True
        ex, ey = producer(x), producer(y)
        return (
            ex is not None
            and ey is not None
            and ex.primitive is ey.primitive
            and dict(ex.params) == dict(ey.params)
            and len(ex.inputs) == len(ey.inputs)
            and all(_same(p, q) for p, q in zip(ex.inputs, ey.inputs, strict=True))
        )

    eqn = producer(value)
    if eqn is None or eqn.primitive not in (ew.add, ew.sub):
        return None
    x, y = eqn.inputs
    if is_read(x):
        added = y if eqn.primitive is ew.add else u._trace.emit(ew.neg, y)
    elif eqn.primitive is ew.add and is_read(y):
        added = x
    else:
        return None
    builder = u._trace.builder
    shape = _result_shape(a)
    if added.type.shape != shape:
        return sh.full(builder, added, shape) if not isinstance(added, Var) else None
    return added  # type: ignore[no-any-return]


def add_at(u: Any, index: Any, value: Any, negate: bool = False) -> None:
    """`np.add.at(u, index, value)`: every value is added, in index order."""
    if not isinstance(u, TracedArray):
        raise trace_error("np.add.at of a traced value into a plain array: use np.zeros_like")
    u._check_writable()
    parsed = _point(index, u.shape) if _is_full_integer(index, u.ndim) else parse(index, u.shape)
    if isinstance(parsed, Basic):
        target = _view(u, parsed)
        target += -value if negate else value  # noqa: PLW2901
        return
    emit = u._trace.emit
    view = _arranged(u, parsed)
    base = view._read()
    scratch = TracedArray(u._trace, None, None, None, u._type.with_shape(_result_shape(parsed)))
    placed = _fit(lift(value), scratch)
    target_shape = ga._type_gather({}, base.type, *(i.type for i in parsed.indices)).shape  # type: ignore
    flat = _displace(emit, emit(ew.neg, placed) if negate else placed, parsed, target_shape)
    view._write(emit(ga.scatter_add, base, flat, *parsed.indices, unique=parsed.unique))


__all__ = ["ArrayType", "add_at", "get_item", "set_item"]
