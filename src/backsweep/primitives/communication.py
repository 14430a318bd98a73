"""Collectives: values that every rank takes part in making.

Each rank's array is a vector of its own, ghosts included; the inner product is the sum over ranks
of all local entries, a replicated value counted once (DESIGN 8). Transposes are taken between
these spaces:

    allreduce_sum    varying -> replicated    transposed: replicate        (no message)
    broadcast_root   varying -> replicated    transposed: only_on_root     (no message)
    gather_blocks    varying -> replicated    transposed: scatter_blocks   (no message)
    halo_exchange    varying -> varying       transposed: halo_transposed

and the other way round. `number` names the call of the user that an equation belongs to: ranks
compare it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.comm import HaloExchange
from backsweep.comm.collectives import WORK
from backsweep.ir import ArrayType, Builder, Literal, Placement, Primitive
from backsweep.ir.builder import scalar
from backsweep.primitives import elementwise as ew
from backsweep.primitives.registry import declare

_TRANSPOSES = {
    "allreduce_sum": "replicate",
    "broadcast_root": "only_on_root",
    "gather_blocks": "scatter_blocks",
    "halo_exchange": "halo_transposed",
}
_TRANSPOSES |= {b: a for a, b in _TRANSPOSES.items()}
_MADE: dict[str, Primitive] = {}


def _same_type(p: Any, x: ArrayType) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


def _type_gather(p: Any, x: ArrayType) -> ArrayType:
    shape = p["decomposition"].shape
    return ArrayType((*x.shape[: x.ndim - len(shape)], *shape), x.dtype)


def _type_scatter(p: Any, x: ArrayType) -> ArrayType:
    block = p["decomposition"].local_shape
    return ArrayType((*x.shape[: x.ndim - len(block)], *block), x.dtype)


def _transpose(name: str) -> Any:
    def rule(b: Builder, eqn: Any, cts: Any, linear: Any) -> list[Any]:
        return [b(_MADE[_TRANSPOSES[name]], cts[0], **eqn.params)]

    return rule


def _linear(
    name: str,
    takes: Placement,
    gives: Placement,
    type_rule: Callable[..., ArrayType] = _same_type,
    work: Callable[[Any, np.ndarray], np.ndarray] | None = None,
) -> Primitive:
    work = work or WORK[name]
    _MADE[name] = declare(
        Primitive(
            name,
            "communication",
            type_rule,
            lambda p, x: work(p, np.asarray(x)),
            linearity="joint",
            transpose=_transpose(name),
            takes=takes,
            gives=gives,
        )
    )
    return _MADE[name]


def _only_on_root(p: Any, x: np.ndarray) -> np.ndarray:
    return x if p["comm"].rank == p["root"] else np.zeros_like(x)


allreduce_sum = _linear("allreduce_sum", "varying", "replicated")
replicate = _linear("replicate", "replicated", "varying", work=lambda p, x: x)
broadcast_root = _linear("broadcast_root", "varying", "replicated")
only_on_root = _linear("only_on_root", "replicated", "varying", work=_only_on_root)
gather_blocks = _linear("gather_blocks", "varying", "replicated", _type_gather)
scatter_blocks = _linear("scatter_blocks", "replicated", "varying", _type_scatter)
halo_exchange = _linear("halo_exchange", "varying", "varying")
halo_transposed = _linear("halo_transposed", "varying", "varying")

SILENT = (replicate, only_on_root, scatter_blocks)
"""Without a message: a rank may leave them out."""

# --------------------------------------------------------------------------- extrema


def _jvp_extremum(b: Builder, eqn: Any, inputs: Any, tangents: Any) -> Any:
    """All of the derivative to the lowest rank that attains an entry."""
    (x,), (x_dot,), p = inputs, tangents, eqn.params
    (out,) = b.replay(eqn, inputs)
    comm = p["comm"]
    attains = b(ew.eq, x, b(replicate, out, **p))
    attains = b(ew.logical_or, attains, b(ew.ne, x, x))  # NaN wins
    own, none = (Literal(k, ArrayType((), np.dtype(np.int64))) for k in (comm.rank, comm.size))
    lowest = b(allreduce_min, b(ew.select, attains, own, none), **p)
    is_own = b(ew.eq, b(replicate, lowest, **p), own)
    picked = b(ew.select, b(ew.logical_and, is_own, attains), x_dot, scalar(0, x_dot))
    return (out,), (b(allreduce_sum, picked, **p),)


def _extremum(name: str) -> Primitive:
    return declare(
        Primitive(
            name,
            "communication",
            _same_type,
            lambda p, x: WORK[name](p, np.asarray(x)),
            jvp=_jvp_extremum,
            takes="varying",
            gives="replicated",
        )
    )


allreduce_max = _extremum("allreduce_max")
allreduce_min = _extremum("allreduce_min")

# --------------------------------------------------------------------------- of cut programs


def _type_fetch(p: Any, x: ArrayType) -> ArrayType:
    return ArrayType(tuple(hi - lo for lo, hi in p["layout"]), x.dtype)


def _fetch_ghosts(p: Any, x: Any) -> np.ndarray:
    x = np.asarray(x)
    owned, layout = p["owned"], p["layout"]
    found = np.zeros([hi - lo for lo, hi in layout], x.dtype)
    if x.size:
        found[tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(owned, layout, strict=True))] = x
    with HaloExchange(p["comm"], [p["shape"]], [owned], [layout], [x.dtype]) as exchange:
        exchange.exchange([found])
    return found


fetch_ghosts = declare(Primitive("fetch_ghosts", "communication", _type_fetch, _fetch_ghosts))
"""What belongs to this rank of an array of `shape`, in a layout with the ghosts around it."""
