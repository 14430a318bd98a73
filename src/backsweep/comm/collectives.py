"""What all ranks do together with arrays of their own, at once or as part of a traced function.

While a function is traced each call is recorded, also of a plain array: else one rank might send
what another one records. Outside it is done at once, by the functions of `WORK`, as what was
recorded is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from backsweep.comm.base import AbstractComm
from backsweep.comm.boxes import Box
from backsweep.comm.grid import Decomposition
from backsweep.comm.halo import HaloExchange
from backsweep.comm.launch import world
from backsweep.errors import CommError, ShapeError


def halo_exchange(array: Any, decomposition: Decomposition, width: int | Sequence[int] = 1) -> Any:
    """Fill the ghost cells of a local array from the ranks that own them.

    Collective: every rank must call.

    Parameters
    ----------
    array : array, shape (..., \\*local)
        `local` is this rank's block of the grid and `width` cells more at both sides of each cut
        axis, on every rank; dimensions in front of the grid's are whole.
    decomposition : Decomposition
    width : int or sequence of int
        Cells at each side of the cut axes, of all or of each.

    Returns
    -------
    array, shape and dtype of `array`
        Owned cells are kept. Ghost cells, those of edges and corners too, become the owners'. What
        lies beyond an end of a grid that is not periodic is kept: it is for boundary conditions.

    Raises
    ------
    ShapeError
        If the array is not the block with its ghosts.

    Notes
    -----
    Linear; its transpose adds the cotangents of ghost cells to those of their owners, in an order
    that is the same in every run, and sets them to zero.

    Examples
    --------
    >>> dec = Decomposition((4,), comm=serial(), periodic=True)
    >>> halo_exchange(np.array([0.0, 1, 2, 3, 4, 0]), dec)
    array([4., 1., 2., 3., 4., 1.])
    """
    widths = _widths(decomposition, width)
    own = decomposition.block()
    local = tuple(
        hi - lo + 2 * w
        for (lo, hi), w in zip(own, per_dimension(decomposition, widths), strict=True)
    )
    n = len(local)
    if np.shape(array)[max(np.ndim(array) - n, 0) :] != local:
        raise ShapeError(
            f"halo_exchange: an array of shape {np.shape(array)}, but this rank's block {own} with "
            f"{widths} ghost cells at each side of the axes {decomposition.axes} has {local}"
        )
    return _do(
        "halo_exchange",
        array,
        comm=decomposition.comm,
        decomposition=decomposition,
        width=widths,
    )


def allreduce_sum(array: Any, comm: AbstractComm | None = None) -> Any:
    """The sum over ranks, entry by entry, the same on all of them.

    Collective: every rank must call.

    Parameters
    ----------
    array : array_like
        Of the same shape and dtype on all ranks; no booleans.
    comm : AbstractComm, optional
        `world()` without it.

    Returns
    -------
    array, shape and dtype of `array`
        ((r0 + r1) + r2) + ...: the same bits on all ranks.

    Notes
    -----
    The transpose hands the cotangent to every rank, without a message.
    """
    return _reduced("allreduce_sum", array, comm, "iufc")


def allreduce_max(array: Any, comm: AbstractComm | None = None) -> Any:
    """The largest over ranks, entry by entry, the same on all of them.

    Collective: every rank must call. Arrays are real, else as for `allreduce_sum`. NaN wins.

    Notes
    -----
    All of an entry's derivative goes to the lowest rank that attains it. In ``allreduce_max(
    np.max(u))`` that is the lowest index on the lowest rank.
    """
    return _reduced("allreduce_max", array, comm, "iuf")


def allreduce_min(array: Any, comm: AbstractComm | None = None) -> Any:
    """The smallest over ranks; else as `allreduce_max`."""
    return _reduced("allreduce_min", array, comm, "iuf")


def broadcast(array: Any, root: int = 0, comm: AbstractComm | None = None) -> Any:
    """One rank's array, the same on all of them then.

    Collective: every rank must call.

    Parameters
    ----------
    array : array_like
        Of the same shape and dtype on all ranks; what others than the root give is not used.
    root : int
    comm : AbstractComm, optional
        `world()` without it.

    Notes
    -----
    The transpose leaves the cotangent to the root, and zeros to the others: no message.
    """
    comm = world() if comm is None else comm
    if not 0 <= root < comm.size:
        raise CommError(f"broadcast: there is no rank {root} among {comm.size}")
    return _do("broadcast_root", array, comm=comm, root=int(root))


def gather(array: Any, decomposition: Decomposition) -> Any:
    """The whole of a field of which each rank gives its own block, on all ranks.

    Collective: every rank must call.

    Parameters
    ----------
    array : array, shape (..., \\*block)
        This rank's cells, without ghosts.
    decomposition : Decomposition

    Returns
    -------
    array, shape (..., \\*decomposition.shape)
        The same on all ranks, which each hold the whole of it.

    Raises
    ------
    ShapeError
        If the array is not the block.

    Notes
    -----
    The transpose is `scatter`: without a message.
    """
    _check_last("gather", array, decomposition.local_shape, "this rank's block")
    return _do("gather_blocks", array, comm=decomposition.comm, decomposition=decomposition)


def scatter(array: Any, decomposition: Decomposition) -> Any:
    """This rank's own block of a field that is the same on all ranks.

    Parameters
    ----------
    array : array, shape (..., \\*decomposition.shape)
        The same on all ranks; of one that only a rank knows, `broadcast` it first.
    decomposition : Decomposition

    Returns
    -------
    array, shape (..., \\*block)

    Raises
    ------
    ShapeError
        If the last dimensions are not the grid's.

    Notes
    -----
    No message. The transpose is `gather`.
    """
    _check_last("scatter", array, decomposition.shape, "the grid")
    return _do("scatter_blocks", array, comm=decomposition.comm, decomposition=decomposition)


def _reduced(name: str, array: Any, comm: AbstractComm | None, kinds: str) -> Any:
    dtype = getattr(array, "dtype", None) or np.asarray(array).dtype
    if dtype.kind not in kinds:
        raise CommError(f"{name}: an array of dtype {dtype}; convert it with .astype first")
    return _do(name, array, comm=world() if comm is None else comm)


def _do(name: str, array: Any, **params: Any) -> Any:
    for record in RECORDERS:
        recorded = record(name, array, params)
        if recorded is not None:
            return recorded
    result = WORK[name](params, np.asarray(array))
    return result[()] if np.ndim(result) == 0 else result


RECORDERS: list[Callable[[str, Any, Any], Any]] = []
"""Asked for each call; None means that nothing is recorded now."""


def _check_last(name: str, array: Any, wanted: tuple[int, ...], what: str) -> None:
    if np.shape(array)[max(np.ndim(array) - len(wanted), 0) :] != wanted:
        raise ShapeError(
            f"{name}: an array of shape {np.shape(array)}, whose last dimensions should be those "
            f"of {what}, {wanted}"
        )


def _widths(decomposition: Decomposition, width: int | Sequence[int]) -> tuple[int, ...]:
    n = len(decomposition.axes)
    widths = (int(width),) * n if isinstance(width, int | np.integer) else tuple(map(int, width))
    if len(widths) != n or min(widths) < 0:
        raise CommError(
            f"halo_exchange: width={width!r}: give one number of cells, or one for each of the cut "
            f"axes {decomposition.axes}"
        )
    return widths


def per_dimension(decomposition: Decomposition, widths: Sequence[int]) -> tuple[int, ...]:
    """Ghost cells at each side of each dimension of the grid."""
    of_axis = dict(zip(decomposition.axes, widths, strict=True))
    return tuple(of_axis.get(axis, 0) for axis in range(len(decomposition.shape)))


# --------------------------------------------------------------------------- how it is done

_kept: ContextVar[dict[Any, HaloExchange] | None] = ContextVar("kept", default=None)


@contextmanager
def kept_exchanges() -> Iterator[None]:
    """Within the block buffers of halo exchanges are made once, and given back at its end."""
    found: dict[Any, HaloExchange] = {}
    token = _kept.set(found)
    try:
        yield
    finally:
        _kept.reset(token)
        for exchange in found.values():
            exchange.close()


def are_kept() -> bool:
    """Whether this is such a block."""
    return _kept.get() is not None


def _ghosted(params: Any, array: np.ndarray, is_transposed: bool) -> np.ndarray:
    out = array.copy()
    with _exchange_of(params, out) as (exchange, part):
        (exchange.transposed if is_transposed else exchange.exchange)([part])
    return out


@contextmanager
def _exchange_of(params: Any, array: np.ndarray) -> Iterator[tuple[HaloExchange, np.ndarray]]:
    """What exchanges the ghosts of an array, and the part of it that takes part."""
    dec, widths = params["decomposition"], params["width"]
    lead = array.shape[: array.ndim - len(dec.shape)]
    own = dec.block()
    # What lies beyond an end of the grid has no owner: it is left out of the exchange.
    wide = per_dimension(dec, widths)
    closed = dict(zip(dec.axes, dec.periodic, strict=True))
    held = tuple(
        (lo - w, hi + w) if closed.get(k) else (max(lo - w, 0), min(hi + w, n))
        for k, ((lo, hi), w, n) in enumerate(zip(own, wide, dec.shape, strict=True))
    )
    at = [slice(a - lo + w, b - lo + w) for (lo, _), (a, b), w in zip(own, held, wide, strict=True)]
    part = array[_trailing(at)]
    key = (id(dec.comm), dec, widths, lead, array.dtype.str)
    exchanges = _kept.get()
    exchange = None if exchanges is None else exchanges.get(key)
    if exchange is None:
        front: Box = tuple((0, n) for n in lead)
        exchange = HaloExchange(
            dec.comm, [lead + dec.shape], [front + own], [front + held], [array.dtype]
        )
    yield exchange, part
    if exchanges is None:
        exchange.close()
    else:
        exchanges[key] = exchange


def prepared(name: str, params: Any, array: np.ndarray, out: np.ndarray) -> Callable[[], None]:
    """A collective of one array into another, to be called again and again.

    Parameters
    ----------
    name : str
        Of `WORK`.
    array, out : ndarray
        Which do not overlap.

    Returns
    -------
    callable
        Collective. Within the block of `kept_exchanges` in which it was made.
    """
    if not are_kept() or name not in ("halo_exchange", "halo_transposed"):

        def work() -> None:
            out[...] = WORK[name](params, array)

        return work
    with _exchange_of(params, out) as (exchange, part):
        is_forward = name == "halo_exchange"
        run = exchange.prepared([part]) if is_forward else partial(exchange.transposed, [part])

    def exchanged() -> None:
        np.copyto(out, array)
        run()

    return exchanged


def _broadcast(params: Any, array: np.ndarray) -> np.ndarray:
    comm, root = params["comm"], params["root"]
    sizes = [array.size if rank == root else 0 for rank in range(comm.size)]
    mine = array.reshape(-1) if comm.rank == root else np.empty(0, array.dtype)
    return comm.join_parts(np.ascontiguousarray(mine), sizes).reshape(array.shape)


def _gather(params: Any, array: np.ndarray) -> np.ndarray:
    dec, comm = params["decomposition"], params["comm"]
    lead = array.shape[: array.ndim - len(dec.shape)]
    blocks = [dec.block(rank) for rank in range(comm.size)]
    shapes = [lead + tuple(hi - lo for lo, hi in box) for box in blocks]
    sizes = [int(np.prod(shape)) for shape in shapes]
    joined = comm.join_parts(np.ascontiguousarray(array).reshape(-1), sizes)
    whole = np.empty(lead + dec.shape, array.dtype)
    for box, shape, n, end in zip(blocks, shapes, sizes, accumulate(sizes), strict=True):
        whole[_trailing(slice(*r) for r in box)] = joined[end - n : end].reshape(shape)
    return whole


def _scatter(params: Any, array: np.ndarray) -> np.ndarray:
    return array[_trailing(slice(*r) for r in params["decomposition"].block())].copy()


def _trailing(ranges: Iterable[slice]) -> Any:
    """The index of ranges of the last dimensions."""
    return (..., *ranges)


def _reduce(op: str) -> Callable[[Any, np.ndarray], np.ndarray]:
    return lambda params, array: params["comm"].allreduce(array, op)


WORK: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "halo_exchange": lambda params, array: _ghosted(params, array, False),
    "halo_transposed": lambda params, array: _ghosted(params, array, True),
    "allreduce_sum": _reduce("sum"),
    "allreduce_max": _reduce("max"),
    "allreduce_min": _reduce("min"),
    "broadcast_root": _broadcast,
    "gather_blocks": _gather,
    "scatter_blocks": _scatter,
}
"""Of (parameters, this rank's array)."""

__all__ = [
    "allreduce_max",
    "allreduce_min",
    "allreduce_sum",
    "broadcast",
    "gather",
    "halo_exchange",
    "scatter",
]
