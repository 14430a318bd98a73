"""Collectives: values that every rank takes part in making.

Each rank's array is a vector of its own; the inner product is the sum over ranks of all local
entries, a replicated value counted once (DESIGN 8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.comm import HaloExchange
from backsweep.ir import ArrayType, Builder, Primitive
from backsweep.primitives.registry import declare


def _same_type(p: Any, x: ArrayType) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


def _reduce(op: str) -> Any:
    return lambda p, x: p["comm"].allreduce(np.asarray(x), op)


def _t_allreduce_sum(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
    """The cotangent of a replicated value is what each rank's term gets: no message."""
    return [cts[0]]


allreduce_sum = declare(
    Primitive(
        "allreduce_sum",
        "communication",
        _same_type,
        _reduce("sum"),
        linearity="joint",
        transpose=_t_allreduce_sum,
    )
)


def _type_halo_exchange(p: Any, x: ArrayType) -> ArrayType:
    return ArrayType(tuple(hi - lo for lo, hi in p["layout"]), x.dtype)


def _halo_exchange(p: Any, x: Any) -> np.ndarray:
    x = np.asarray(x)
    owned, layout = p["owned"], p["layout"]
    found = np.zeros([hi - lo for lo, hi in layout], x.dtype)
    if x.size:
        found[tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(owned, layout, strict=True))] = x
    with HaloExchange(p["comm"], [p["shape"]], [owned], [layout], [x.dtype]) as exchange:
        exchange.exchange([found])
    return found


halo_exchange = declare(
    Primitive("halo_exchange", "communication", _type_halo_exchange, _halo_exchange)
)
"""What belongs to this rank of an array of `shape`, in a layout with the ghosts around it."""
