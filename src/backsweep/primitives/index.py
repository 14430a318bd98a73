"""Primitives that read and write regions of an array.

A *region* of an array is given per dimension by a start, a step (negative too) and,
from the other operand's shape, a size. `slice` reads a region, `pad` puts a value into
a region of zeros, `update` replaces a region; the first two are each other's transpose.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Builder, Primitive
from backsweep.primitives.registry import declare
from backsweep.primitives.shape import zeros


def region(starts: Any, steps: Any, sizes: Any) -> tuple[slice, ...]:
    """The NumPy index of a region."""
    out = []
    for start, step, size in zip(starts, steps, sizes, strict=True):
        stop: int | None = start + step * size
        if stop is not None and stop < 0:
            stop = None
        out.append(slice(start, stop, step) if size else slice(0, 0))
    return tuple(out)


def _check_region(name: str, shape: Any, starts: Any, steps: Any, sizes: Any) -> None:
    for extent, start, step, size in zip(shape, starts, steps, sizes, strict=True):
        last = start + step * (size - 1)
        if size and not (0 <= start < extent and 0 <= last < extent):
            raise ShapeError(f"{name}: {start}, step {step}, size {size} leaves 0..{extent}")


# --------------------------------------------------------------------------- slice, pad


def _type_slice(p: Any, x: ArrayType) -> ArrayType:
    _check_region("slice", x.shape, p["starts"], p["steps"], p["sizes"])
    return x.with_shape(p["sizes"])


def _evaluate_slice(p: Any, x: Any) -> Any:
    return x[region(p["starts"], p["steps"], p["sizes"])]


def _t_slice(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    p, shape = eqn.params, eqn.inputs[0].type.shape
    return [b(pad, cts[0], shape=shape, starts=p["starts"], steps=p["steps"])]


def _type_pad(p: Any, x: ArrayType) -> ArrayType:
    _check_region("pad", p["shape"], p["starts"], p["steps"], x.shape)
    return x.with_shape(p["shape"])


def _evaluate_pad(p: Any, x: Any) -> Any:
    out = np.zeros(p["shape"], np.asarray(x).dtype)
    out[region(p["starts"], p["steps"], np.shape(x))] = x
    return out


def _t_pad(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    p, sizes = eqn.params, eqn.inputs[0].type.shape
    return [b(slice_, cts[0], starts=p["starts"], steps=p["steps"], sizes=sizes)]


slice_ = declare(
    Primitive("slice", "index", _type_slice, _evaluate_slice, linearity="joint", transpose=_t_slice)
)
pad = declare(
    Primitive("pad", "index", _type_pad, _evaluate_pad, linearity="joint", transpose=_t_pad)
)

# --------------------------------------------------------------------------- update


def _type_update(p: Any, base: ArrayType, value: ArrayType) -> ArrayType:
    if base.dtype != value.dtype:
        raise ShapeError(f"update: base {base} and value {value} differ in dtype")
    _check_region("update", base.shape, p["starts"], p["steps"], value.shape)
    return base.with_shape(base.shape)


def _evaluate_update(p: Any, base: Any, value: Any) -> Any:
    out = np.array(base)
    out[region(p["starts"], p["steps"], np.shape(value))] = value
    return out


def _t_update(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    p, sizes, ct = eqn.params, eqn.inputs[1].type.shape, cts[0]
    hole = zeros(b, ArrayType(sizes, ct.type.dtype))
    return [
        b(update, ct, hole, starts=p["starts"], steps=p["steps"]) if linear[0] else None,
        b(slice_, ct, starts=p["starts"], steps=p["steps"], sizes=sizes) if linear[1] else None,
    ]


update = declare(
    Primitive(
        "update", "index", _type_update, _evaluate_update, linearity="joint", transpose=_t_update
    )
)

# --------------------------------------------------------------------------- concatenate, iota


def _type_concatenate(p: Any, *types: ArrayType) -> ArrayType:
    axis = p["axis"]
    first = types[0]
    for t in types[1:]:
        if t.dtype != first.dtype or t.ndim != first.ndim:
            raise ShapeError(f"concatenate: {first} and {t} do not fit")
    shape = list(first.shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    for t in types:
        if any(a != c for k, (a, c) in enumerate(zip(t.shape, shape, strict=True)) if k != axis):
            raise ShapeError(f"concatenate along axis {axis}: {first} and {t} do not fit")
    return first.with_shape(tuple(shape))


def _t_concatenate(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    axis, ct = eqn.params["axis"], cts[0]
    result: list[Any] = []
    at = 0
    for x, is_linear in zip(eqn.inputs, linear, strict=True):
        starts = tuple(at if k == axis else 0 for k in range(ct.type.ndim))
        at += x.type.shape[axis]
        steps = (1,) * ct.type.ndim
        part = {"starts": starts, "steps": steps, "sizes": x.type.shape}
        result.append(b(slice_, ct, **part) if is_linear else None)
    return result


concatenate = declare(
    Primitive(
        "concatenate",
        "index",
        _type_concatenate,
        lambda p, *xs: np.concatenate(xs, p["axis"]),
        linearity="joint",
        transpose=_t_concatenate,
    )
)


def _evaluate_iota(p: Any) -> Any:
    shape, axis = p["shape"], p["axis"]
    line = np.arange(shape[axis], dtype=p["dtype"])
    line = line.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return np.broadcast_to(line, shape)


iota = declare(
    Primitive("iota", "index", lambda p: ArrayType(p["shape"], p["dtype"]), _evaluate_iota)
)
