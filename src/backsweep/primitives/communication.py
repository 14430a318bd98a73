"""Collectives: values that every rank takes part in making.

Each rank's array is a vector of its own; the inner product is the sum over ranks of all local
entries, a replicated value counted once (DESIGN 8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
