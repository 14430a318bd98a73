"""Functions that choose between values or take their parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.primitives import elementwise as ew
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import cast, handles, traced, type_of, unify
from backsweep.trace.tracing import require_trace, trace_error
from backsweep.trace.ufuncs import as_mask, broadcast_together, elementwise


@handles(np.where)
def where(condition: Any, x: Any = None, y: Any = None) -> TracedArray:
    """A choice, element by element; the branch not taken gets no derivative, not even NaN."""
    if x is None or y is None:
        raise trace_error(
            "np.where(condition) with one argument has no size that is known while tracing: "
            "use np.where(condition, a, b)"
        )
    return elementwise(ew.select, [as_mask(lift(condition)), *unify([x, y])])


@handles(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> TracedArray:
    *values, result = (wrap(a) for a in unify([*choicelist, default]))
    for condition, value in zip(reversed(condlist), reversed(values), strict=True):
        result = where(condition, value, result)
    return result


@handles(np.clip, methods=["clip"])
def clip(
    a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None
) -> TracedArray:
    """min(max(a, a_min), a_max); a value on a bound counts as inside: its derivative is 1."""
    low = a_min if a_min is not None else min
    high = a_max if a_max is not None else max
    bounds = [b for b in (low, high) if b is not None]
    value, *rest = broadcast_together(unify([a, *bounds]))
    emit = require_trace().emit
    if low is not None:
        bound = rest.pop(0)
        value = emit(ew.select, emit(ew.lt, value, bound), bound, value)
    if high is not None:
        bound = rest.pop(0)
        value = emit(ew.select, emit(ew.gt, value, bound), bound, value)
    return wrap(value)


@handles(np.real)
def real(val: Any) -> TracedArray:
    return traced(val).real


@handles(np.imag)
def imag(val: Any) -> TracedArray:
    return traced(val).imag


@handles(np.angle)
def angle(z: Any, deg: bool = False) -> TracedArray:
    z = traced(z)
    if z.dtype.kind in "iub":
        z = wrap(cast(lift(z), np.float64))
    phase = np.arctan2(z.imag, z.real)
    return phase * (180.0 / np.pi) if deg else phase


@handles(np.nan_to_num)
def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> TracedArray:
    """Real values only; `copy=False` is not in place."""
    x = traced(x)
    if x.dtype.kind == "c":
        raise trace_error("nan_to_num: not supported on complex values; use it on the parts")
    if x.dtype.kind != "f":
        return wrap(lift(x))
    info = np.finfo(x.dtype)
    x = where(x != x, nan, x)
    x = where(x == np.inf, info.max if posinf is None else posinf, x)
    return where(x == -np.inf, info.min if neginf is None else neginf, x)


@handles(np.triu)
def triu(m: Any, k: int = 0) -> TracedArray:
    m = traced(m)
    return where(~np.tri(m.shape[-2], m.shape[-1], k - 1, bool), m, m.dtype.type(0))


@handles(np.tril)
def tril(m: Any, k: int = 0) -> TracedArray:
    m = traced(m)
    return where(np.tri(m.shape[-2], m.shape[-1], k, bool), m, m.dtype.type(0))


@handles(np.copyto)
def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    if not isinstance(dst, TracedArray):
        raise trace_error("np.copyto of a traced value into a plain array: use np.zeros_like(u)")
    if where is True:
        dst[...] = src
    else:
        mask = np.broadcast_to(where, dst.shape)
        dst[...] = elementwise(ew.select, [lift(mask), *unify([src, dst])])


@handles(np.isclose)
def isclose(
    a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False
) -> TracedArray:
    a, b = traced(a), traced(b)
    near = abs(a - b) <= atol + rtol * abs(b)
    near = (near & (abs(b) < np.inf)) | (a == b)
    return near | ((a != a) & (b != b)) if equal_nan else near


@handles(np.result_type)
def result_type(*values: Any) -> np.dtype:
    plain = [v for v in values if not isinstance(v, TracedArray)]
    types = [type_of(lift(v)) for v in values if isinstance(v, TracedArray)]
    weak = [t.dtype.type(0).item() for t in types if t.weak]
    return np.result_type(*plain, *weak, *(t.dtype for t in types if not t.weak))
