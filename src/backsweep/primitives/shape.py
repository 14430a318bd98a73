"""Primitives that change the shape of a value, and the sum, the transpose of a broadcast.

The order of a sum is part of its meaning, so that every executor gives the same bits:
blocks of 512 elements, in each 64 lane accumulators that are folded in halves, and the
blocks added one after the other in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Builder, Literal, Primitive
from backsweep.primitives.registry import declare

LANES = 64
BLOCK = 512

# --------------------------------------------------------------------------- sum


def _type_reduced(p: Any, x: ArrayType) -> ArrayType:
    return x.with_shape(tuple(n for k, n in enumerate(x.shape) if k not in p["axes"]))


def _reduced_last(p: Any, x: Any) -> np.ndarray:
    """Reduced axes flattened to the last one."""
    x = np.asarray(x)
    kept = [k for k in range(x.ndim) if k not in p["axes"]]
    shape = [x.shape[k] for k in kept]
    return np.transpose(x, [*kept, *p["axes"]]).reshape([*shape, -1])


def lane_sum(x: np.ndarray) -> np.ndarray:
    """Sum over the last axis in the order that compiled code uses."""
    wide = np.dtype(np.complex128 if x.dtype.kind == "c" else np.float64)
    n = x.shape[-1]
    n_blocks = max(1, -(-n // BLOCK))
    padded = np.zeros((*x.shape[:-1], n_blocks * BLOCK), x.dtype)
    padded[..., :n] = x
    lanes = padded.reshape((*x.shape[:-1], n_blocks, BLOCK // LANES, LANES))
    total = lanes[..., 0, :].copy()
    for k in range(1, BLOCK // LANES):
        total += lanes[..., k, :]
    width = LANES
    while width > 1:
        width //= 2
        total = total[..., :width] + total[..., width : 2 * width]
    blocks = total[..., 0].astype(wide)
    return np.add.accumulate(blocks, axis=-1)[..., -1].astype(x.dtype)


def _evaluate_sum(p: Any, x: Any) -> Any:
    x = np.asarray(x)
    if x.dtype.kind in "fc":
        if x.ndim == 0 or 0 in x.shape:
            return np.asarray(np.sum(x, axis=p["axes"]), x.dtype)
        return lane_sum(_reduced_last(p, x))
    return np.sum(x, axis=p["axes"], dtype=x.dtype)


def _t_sum(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    x = eqn.inputs[0]
    dims = tuple(k for k in range(x.type.ndim) if k not in eqn.params["axes"])
    return [b(broadcast, cts[0], shape=x.type.shape, dims=dims)]


sum_ = declare(
    Primitive("sum", "reduce", _type_reduced, _evaluate_sum, linearity="joint", transpose=_t_sum)
)


def sum_to(b: Builder, x: Atom, axes: tuple[int, ...]) -> Atom:
    return b(sum_, x, axes=axes) if axes else x


# --------------------------------------------------------------------------- shape


def _type_broadcast(p: Any, x: ArrayType) -> ArrayType:
    """`dims[k]` is the output dimension of input dimension k; others are new."""
    for extent, dim in zip(x.shape, p["dims"], strict=True):
        if extent not in (1, p["shape"][dim]):
            raise ShapeError(f"broadcast: {x} does not fit into {p['shape']}")
    return x.with_shape(p["shape"])


def _evaluate_broadcast(p: Any, x: Any) -> Any:
    x = np.asarray(x)
    shape = [1] * len(p["shape"])
    for extent, dim in zip(x.shape, p["dims"], strict=True):
        shape[dim] = extent
    return np.broadcast_to(x.reshape(shape), p["shape"])


def _t_broadcast(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    x, dims = eqn.inputs[0], eqn.params["dims"]
    shape = eqn.params["shape"]
    axes = [d for d in range(len(shape)) if d not in dims]
    axes += [d for d, n in zip(dims, x.type.shape, strict=True) if n == 1 and shape[d] != 1]
    ct = sum_to(b, cts[0], tuple(sorted(axes)))
    return [b(reshape, ct, shape=x.type.shape) if ct.type.shape != x.type.shape else ct]


broadcast = declare(
    Primitive(
        "broadcast",
        "index",
        _type_broadcast,
        _evaluate_broadcast,
        linearity="joint",
        transpose=_t_broadcast,
    )
)


def broadcast_to(b: Builder, x: Atom, shape: tuple[int, ...]) -> Atom:
    """NumPy's broadcasting of a value to a shape; literals stay as they are."""
    assert isinstance(x.type, ArrayType)
    if x.type.shape == shape or isinstance(x, Literal):
        return x
    offset = len(shape) - x.type.ndim
    dims = tuple(range(offset, len(shape)))
    return b(broadcast, x, shape=shape, dims=dims)


def full(b: Builder, literal: Literal, shape: tuple[int, ...]) -> Atom:
    """An array filled with a literal."""
    return b(broadcast, literal, shape=shape, dims=())


def zeros(b: Builder, type: ArrayType) -> Atom:
    return full(b, Literal(0, ArrayType((), type.dtype)), type.shape)


def _type_reshape(p: Any, x: ArrayType) -> ArrayType:
    out = x.with_shape(p["shape"])
    if out.size != x.size:
        raise ShapeError(f"reshape: {x} has {x.size} elements, {p['shape']} has {out.size}")
    return out


def _t_reshape(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    return [b(reshape, cts[0], shape=eqn.inputs[0].type.shape)]


reshape = declare(
    Primitive(
        "reshape",
        "index",
        _type_reshape,
        lambda p, x: np.reshape(x, p["shape"]),
        linearity="joint",
        transpose=_t_reshape,
    )
)


def _t_transpose(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    inverse = tuple(int(k) for k in np.argsort(eqn.params["axes"]))
    return [b(transpose, cts[0], axes=inverse)]


transpose = declare(
    Primitive(
        "transpose",
        "index",
        lambda p, x: x.with_shape(tuple(x.shape[k] for k in p["axes"])),
        lambda p, x: np.transpose(x, p["axes"]),
        linearity="joint",
        transpose=_t_transpose,
    )
)
