"""A grid cut into blocks, one per rank.

Nothing is sent here: from the shapes alone every rank knows the block of every other one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from backsweep.comm.base import AbstractComm
from backsweep.comm.launch import world
from backsweep.errors import CommError

MAX_CUT_AXES = 3


@final
@dataclass(frozen=True, init=False, repr=False)
class Decomposition:
    """Blocks of a grid, one per rank of a communicator, cut along one to three axes.

    Two decompositions are equal if they cut the same grid in the same way, whatever their
    communicators are. Ranks are numbered in C order of their coordinates.

    Parameters
    ----------
    shape : sequence of int
        Of the whole grid.
    axes : int or sequence of one to three int, optional
        The axes to cut; negative ones count from the end. Without it only the longest axis is cut
        (of equals the first): every rank then has at most two neighbours.
    comm : AbstractComm, optional
        `world()` without it, which is collective: every rank must call.
    periodic : bool or sequence of bool
        Whether the grid closes upon itself, along all cut axes or along each. It does not change
        the blocks.
    ranks : int or sequence of int, optional
        Number of ranks along each cut axis. Without it: of the ways to share them out, the one
        with the smallest surface between blocks; of equals the one with more ranks along the axes
        that are named first.

    Attributes
    ----------
    shape, axes, ranks : tuple of int
    periodic : tuple of bool, one per cut axis
    comm : AbstractComm
    programs : dict
        What has been cut in this way, remembered.

    Raises
    ------
    CommError
        If axes or numbers of ranks do not fit the grid and the communicator, or a rank would
        have no cell.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    periodic: tuple[bool, ...]
    ranks: tuple[int, ...]
    comm: AbstractComm = field(compare=False)
    programs: OrderedDict[Any, Any] = field(compare=False)

    def __init__(
        self,
        shape: Sequence[int],
        axes: int | Sequence[int] | None = None,
        comm: AbstractComm | None = None,
        *,
        periodic: bool | Sequence[bool] = False,
        ranks: int | Sequence[int] | None = None,
    ) -> None:
        comm = world() if comm is None else comm
        sizes = tuple(int(n) for n in shape)
        if not sizes or min(sizes) < 1:
            raise CommError(f"a grid of shape {sizes} has no cells to share out among ranks")
        cut = _cut_axes(sizes, axes)
        lengths = tuple(sizes[axis] for axis in cut)
        for name, value in {
            "shape": sizes,
            "axes": cut,
            "periodic": tuple(map(bool, _per_axis("periodic", periodic, cut))),
            "ranks": (
                _best_ranks(sizes, cut, comm.size)
                if ranks is None
                else _given_ranks(
                    lengths, tuple(map(int, _per_axis("ranks", ranks, cut))), comm.size
                )
            ),
            "comm": comm,
            "programs": OrderedDict(),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def n_ranks(self) -> int:
        return math.prod(self.ranks)

    @property
    def local_shape(self) -> tuple[int, ...]:
        """The shape of this rank's block."""
        return tuple(hi - lo for lo, hi in self.block())

    def coordinates(self, rank: int | None = None) -> tuple[int, ...]:
        """Where a rank (without it: this one) stands along each of the cut axes."""
        rank = self.comm.rank if rank is None else rank
        if not 0 <= rank < self.n_ranks:
            raise CommError(f"there is no rank {rank}: the grid is cut for {self.n_ranks}")
        found = []
        for n in reversed(self.ranks):
            rank, coordinate = divmod(rank, n)
            found.append(coordinate)
        return tuple(reversed(found))

    def block(self, rank: int | None = None) -> tuple[tuple[int, int], ...]:
        """The cells (first, last + 1) of a rank, per dimension of the grid.

        Along a cut axis blocks differ by at most one cell.
        """
        box = [(0, n) for n in self.shape]
        for axis, coordinate, n_ranks in self._cuts(rank):
            n = self.shape[axis]
            box[axis] = (n * coordinate // n_ranks, n * (coordinate + 1) // n_ranks)
        return tuple(box)

    def owned(
        self, axis: int, start: int, step: int, extent: int, rank: int | None = None
    ) -> tuple[int, int]:
        """The indices of an array's dimension that belong to a rank's block.

        Index i of `extent` lies at the grid's coordinate start + step * i along `axis`. What lies
        before the grid belongs to the first block, what lies behind it to the last: so arrays
        that are padded beyond the grid are owned as well. Over all coordinates along the axis the
        ranges are a partition of range(extent); along an axis that is not cut, everything.

        Parameters
        ----------
        axis, start, step, extent : int
            `step` may be negative, but not 0.
        rank : int, optional
            This one without it.

        Returns
        -------
        tuple of two int
            First index and last + 1; equal if there is none.
        """
        if step == 0:
            raise CommError("an array whose indices all lie on one cell is not cut: step is 0")
        axis = _checked_axis(self.shape, axis)
        for cut, coordinate, n_ranks in self._cuts(rank):
            if cut != axis:
                continue
            lo, hi = self.block(rank)[axis]
            # Of a descending dimension the ends change places, and so does what they include.
            first, last = (lo, hi) if step > 0 else (hi - 1, lo - 1)
            is_first, is_last = coordinate == 0, coordinate == n_ranks - 1
            if step < 0:
                is_first, is_last = is_last, is_first
            return (
                0 if is_first else _first_beyond(first, start, step, extent),
                extent if is_last else _first_beyond(last, start, step, extent),
            )
        return 0, extent

    def describe(self) -> str:
        """One sentence per cut axis."""
        lines = [f"a grid of {_times(self.shape)} cells on {_n(self.n_ranks, 'rank')}"]
        for axis, n_ranks, is_periodic in zip(self.axes, self.ranks, self.periodic, strict=True):
            n = self.shape[axis]
            least, most = n // n_ranks, -(-n // n_ranks)
            cells = f"{least} cells" if least == most else f"{least} or {most} cells"
            closed = ", periodic" if is_periodic else ""
            lines.append(f"axis {axis}: {n_ranks} x {cells}{closed}")
        return "; ".join(lines)

    def __repr__(self) -> str:
        closed = f", periodic={self.periodic}" if any(self.periodic) else ""
        return f"Decomposition({self.shape}, axes={self.axes}, ranks={self.ranks}{closed})"

    def _cuts(self, rank: int | None) -> Iterator[tuple[int, int, int]]:
        """Axis, coordinate of the rank and number of ranks along each cut axis."""
        return zip(self.axes, self.coordinates(rank), self.ranks, strict=True)


def _first_beyond(cell: int, start: int, step: int, extent: int) -> int:
    """The first index whose coordinate has reached a cell, in the direction of the step."""
    return min(max(-((start - cell) // step), 0), extent)


def _checked_axis(shape: tuple[int, ...], axis: int) -> int:
    if not -len(shape) <= axis < len(shape):
        raise CommError(f"a grid of shape {shape} has no axis {axis}")
    return axis % len(shape)


def _cut_axes(shape: tuple[int, ...], axes: int | Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        return (shape.index(max(shape)),)
    given = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    cut = tuple(_checked_axis(shape, int(axis)) for axis in given)
    if len(set(cut)) < len(cut) or not 1 <= len(cut) <= MAX_CUT_AXES:
        raise CommError(f"axes {given}: a grid is cut along one to three different axes")
    return cut


def _per_axis(name: str, value: Any, cut: tuple[int, ...]) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, Iterable) else (value,) * len(cut)
    if len(values) != len(cut):
        raise CommError(f"{name} {values}: give one for each of the cut axes {cut}")
    return values


def _given_ranks(lengths: tuple[int, ...], ranks: tuple[int, ...], size: int) -> tuple[int, ...]:
    if min(ranks) < 1 or math.prod(ranks) != size:
        raise CommError(
            f"ranks {ranks} along the cut axes make {math.prod(ranks)}, but the communicator has "
            f"{size}; leave `ranks` out to have them shared out"
        )
    for n, n_ranks in zip(lengths, ranks, strict=True):
        if n_ranks > n:
            raise CommError(
                f"{n_ranks} ranks along an axis of {n} cells: some would have none; give fewer "
                "ranks along it, or leave `ranks` out"
            )
    return ranks


def _best_ranks(shape: tuple[int, ...], cut: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The factors of `size` with the smallest surface between blocks."""
    lengths = tuple(shape[axis] for axis in cut)
    n_cells = math.prod(shape)

    def cost(ranks: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        surface = sum((p - 1) * (n_cells // n) for p, n in zip(ranks, lengths, strict=True))
        return surface, tuple(-p for p in ranks)

    fitting = [
        ranks
        for ranks in _factorisations(size, len(cut))
        if all(p <= n for p, n in zip(ranks, lengths, strict=True))
    ]
    if not fitting:
        raise CommError(
            f"a grid of shape {shape} cannot be cut along {cut} into {_n(size, 'block')} with at "
            "least one cell each; cut along more axes, start fewer ranks, or a number with small "
            "factors"
        )
    return min(fitting, key=cost)


def _factorisations(n: int, count: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (n,)
        return
    for p in range(1, n + 1):
        if n % p == 0:
            for rest in _factorisations(n // p, count - 1):
                yield (p, *rest)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _n(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


__all__ = ["Decomposition"]
