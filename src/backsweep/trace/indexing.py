"""Reading and writing by index, with NumPy's rules."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Var
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as ga
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.index_forms import Advanced, Basic, _index_atoms, _integer, parse
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.ufuncs import _fit
from backsweep.trace.views import Picked, ReadOnly, Region, Reshaped

# --------------------------------------------------------------------------- reading


def get_item(u: TracedArray, index: Any) -> Any:
    """`u[index]`: a view for basic indices, a copy for index arrays, a value for a point."""
    if _is_full_integer(index, u.ndim):
        parsed: Basic | Advanced = _point(index, u.shape)
    else:
        parsed = parse(index, u.shape)
    if isinstance(parsed, Advanced):
        if _points_shape(parsed) == () and parsed.rest_shape:
            return _picked(u, parsed, index)
        return wrap(_gather(u, parsed))
    view = _view(u, parsed)
    return wrap(lift(view)) if _copies(u, index) else view


def _copies(u: TracedArray, index: Any) -> bool:
    """Where NumPy copies what looks like a basic index."""
    items = index if isinstance(index, tuple) else (index,)
    return (u.ndim == 0 and index == ()) or any(isinstance(i, np.ndarray) for i in items)


def _picked(u: TracedArray, a: Advanced, index: Any) -> TracedArray:
    """A view at traced integers; of an array from outside one that is read only."""
    if u._trace is not require_trace():
        return read_only(wrap(_gather(u, a)))
    arranged = _arranged(u, a)
    shape = arranged.shape[len(a.indices) :]
    view = arranged._make_view(Picked(a.indices, index), u._type.with_shape(shape))
    return view if shape == a.rest_shape else view._reshaped(a.rest_shape)


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


def read_only(u: TracedArray, shape: tuple[int, ...] | None = None) -> TracedArray:
    """A view, broadcast to a shape, that cannot be written to."""
    shape = u.shape if shape is None else shape
    return TracedArray(u._trace, None, u, ReadOnly(shape), u._type.with_shape(shape))


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
    return a.indices[0].type.shape


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
    return emit(sh.transpose, value, axes=axes)


def _displace(emit: Any, value: Atom, a: Advanced, target: tuple[int, ...]) -> Atom:
    """The inverse of `_place`, for values to write."""
    points = _points_shape(a)
    n, p = len(points), a.position
    n_rest = len(a.rest_shape)
    axes = (*range(p, p + n), *range(p), *range(p + n, n + n_rest))
    value = emit(sh.transpose, value, axes=axes)
    return emit(sh.reshape, value, shape=target)


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
        if not _is_same_pick(u, index, value):
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


def _is_same_pick(u: TracedArray, index: Any, value: Any) -> bool:
    """`u[i] += v` with a traced integer ends by writing the view u[i] onto itself."""
    if not isinstance(value, TracedArray):
        return False
    chain: TracedArray | None = value
    while chain is not None and not isinstance(chain._view, Picked):
        if not isinstance(chain._view, Reshaped):
            return False
        chain = chain._base
    if chain is None or not isinstance(chain._view, Picked):
        return False
    written = chain._view.index
    if isinstance(index, tuple) and isinstance(written, tuple) and len(index) == len(written):
        is_same = all(_is_same_item(i, j) for i, j in zip(index, written, strict=True))
    else:
        is_same = _is_same_item(index, written)
    base = chain._base
    while is_same and base is not None and base is not u:
        base = base._base
    return is_same and base is u


def _is_same_item(i: Any, j: Any) -> bool:
    if isinstance(i, TracedArray):
        return i is j and i._base is None
    return i is j or (isinstance(i, (int, slice)) and type(i) is type(j) and i == j)


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
    return added


def add_at(u: Any, index: Any, value: Any, negate: bool = False) -> None:
    """`np.add.at(u, index, value)`: every value is added, in index order."""
    if not isinstance(u, TracedArray):
        raise trace_error("np.add.at of a traced value into a plain array: use np.zeros_like")
    u._check_writable()
    parsed = _point(index, u.shape) if _is_full_integer(index, u.ndim) else parse(index, u.shape)
    if isinstance(parsed, Basic):
        target = _view(u, parsed)
        target += -value if negate else value
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
