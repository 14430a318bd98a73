"""What one rank does in a gradient: operations, bytes, messages, files. Counted, nothing is run.

The numbers come from the rank's own program, cut for a job of any size (`comm.PlannedComm`), and
from the plan of its scans. Seconds are made of them in `costs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from backsweep.comm import Decomposition
from backsweep.comm.boxes import Box
from backsweep.comm.halo import LONG
from backsweep.errors import MachineError
from backsweep.ir import ArrayType, Program
from backsweep.passes.partition.halo import HaloField, made_of_read
from backsweep.runtime.forecast import Forecast, ScanForecast

GATHERS = 6
"""Times that all ranks get an object of each in a gradient that is cut (tests count them)."""

GATHERS_OF_SCAN = 25
"""So, of each scan with its reverse sweep."""


@dataclass(frozen=True)
class Round:
    """What a rank receives in one exchange of ghosts.

    Attributes
    ----------
    n_near, n_far : int
        Messages from ranks of its own node, and from others.
    near_bytes, far_bytes : int
    is_overlapped : bool
        Whether rows are computed while the messages travel.
    """

    n_near: int = 0
    near_bytes: int = 0
    n_far: int = 0
    far_bytes: int = 0
    is_overlapped: bool = False


@dataclass(frozen=True)
class ScanWork:
    """One scan of a gradient, on one rank.

    Attributes
    ----------
    n_advances, n_reverses : int
    operations, step_bytes : tuple of int
        Scalar operations of a step and of a reverse step, and the bytes that each moves at least.
    rounds : tuple of Round or None
        After a step, and after a reverse step; None where nothing is cut.
    n_fields : int
        For which messages are found, in all exchanges of the scan and of its reverse sweep.
    n_sums : int
        All-reduces within a step and its reverse step together.
    n_transfers, transfer_bytes : int
        Of snapshots to and from files.
    is_overlapped : bool
        Whether files are written and read while steps run.
    """

    n_advances: int
    n_reverses: int
    operations: tuple[int, int]
    step_bytes: tuple[int, int]
    rounds: tuple[Round | None, Round | None] = (None, None)
    n_fields: int = 0
    n_sums: int = 0
    n_transfers: int = 0
    transfer_bytes: int = 0
    is_overlapped: bool = False


@dataclass(frozen=True)
class Work:
    """A gradient on one rank.

    Attributes
    ----------
    scans : tuple of ScanWork
    sums : tuple of int
        Bytes of each all-reduce outside of the scans.
    n_gathers : int
        Times that all ranks get an object of each.
    memory_bytes : int
        Of the process at its peak.
    fixed_seconds, cut_seconds : float
        To trace the program, to compare it with the others' and to plan it; to cut it, once.
    """

    scans: tuple[ScanWork, ...]
    sums: tuple[int, ...] = ()
    n_gathers: int = 0
    memory_bytes: int = 0
    fixed_seconds: float = 0.0
    cut_seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where a rank stands in a job that is cut into blocks.

    Attributes
    ----------
    decomposition : Decomposition
    rank, ranks_per_node : int
        Ranks are placed on nodes in their order.
    """

    decomposition: Decomposition
    rank: int
    ranks_per_node: int

    def is_far(self, rank: int) -> bool:
        return rank // self.ranks_per_node != self.rank // self.ranks_per_node


def work_of_program(program: Program, forecast: Forecast, place: Place | None = None) -> Work:
    """What a rank does in a gradient.

    Parameters
    ----------
    program : Program
        The rank's own.
    forecast : Forecast
        Of this program.
    place : Place, optional
        Without it nothing is cut.

    Raises
    ------
    MachineError
        If the number of steps of a scan is not known before it runs.
    """
    check_lengths(forecast)
    scans = tuple(_work_of_scan(scan, place) for scan in forecast.scans)
    sums = tuple(
        v.type.nbytes
        for e in program.equations
        if e.primitive.name == "allreduce_sum"
        for v in e.outputs
        if isinstance(v.type, ArrayType)
    )
    n_gathers = 0
    if place is not None and place.decomposition.n_ranks > 1:
        n_gathers = GATHERS + GATHERS_OF_SCAN * len(scans)
    return Work(scans, sums, n_gathers, forecast.resident_bytes)


def check_lengths(forecast: Forecast) -> None:
    """Raise MachineError for a loop whose number of steps is found on its way."""
    for number, scan in enumerate(forecast.scans):
        if scan.n_steps < 0:
            raise MachineError(
                f"scan {number} is a loop that ends where its condition fails: its seconds cannot "
                "be predicted"
            )


def _work_of_scan(scan: ScanForecast, place: Place | None) -> ScanWork:
    rounds: tuple[Round | None, Round | None] = (None, None)
    n_sums = n_fields = 0
    if scan.halo is not None and place is not None:
        rounds = round_of(scan.halo.states, place), round_of(scan.halo.bars, place)
        n_sums = int(scan.halo.adds_up)
        # Those of states are made for both sweeps (`runtime.ghosts`).
        n_fields = 2 * _n_exchanged(scan.halo.states) + _n_exchanged(scan.halo.bars)
    return ScanWork(
        scan.n_advances,
        scan.n_reverses,
        scan.operations,
        scan.step_bytes,
        rounds,
        n_fields,
        n_sums,
        scan.n_transfers,
        scan.transfer_bytes,
        scan.n_buffers > 0,
    )


def _n_exchanged(fields: Sequence[HaloField]) -> int:
    """Fields of an exchange before the first step, and of that after each step."""
    made = set(made_of_read(fields, [f.is_read for f in fields]))
    return sum((f.is_read or k in made) + (k in made) for k, f in enumerate(fields))


def round_of(fields: Sequence[HaloField], place: Place) -> Round:
    """What a rank receives after a step: as `HaloExchange` makes its messages.

    From its own boxes alone: blocks of other ranks are taken to be as long as its own.
    """
    boxes: dict[int, list[int]] = {}
    for k in made_of_read(fields, [f.is_read for f in fields]):
        for rank, n_cells in _neighbours(fields[k], place):
            boxes.setdefault(rank, []).append(n_cells * fields[k].dtype.itemsize)
    found: dict[bool, tuple[int, int]] = {True: (0, 0), False: (0, 0)}
    for rank, sizes in boxes.items():
        n_messages, n_bytes = found[place.is_far(rank)]
        short = [n for n in sizes if n < LONG]
        n_messages += len(sizes) - len(short) + (1 if short else 0)
        found[place.is_far(rank)] = n_messages, n_bytes + sum(sizes)
    return Round(*found[False], *found[True], _has_quiet_rows(place.decomposition))


def _has_quiet_rows(cut: Decomposition) -> bool:
    """Whether there are rows that no message touches: decision 0019."""
    along = dict(zip(cut.axes, cut.ranks, strict=True))
    return len(cut.shape) > 1 and along.get(0) == cut.n_ranks


def _neighbours(own: HaloField, place: Place) -> list[tuple[int, int]]:
    """The ranks whose cells a field has as ghosts, and how many of each; several may be one's."""
    cut = place.decomposition
    here = cut.coordinates(place.rank)
    first = len(own.shape) - len(cut.shape)  # leading dimensions are no axes of the grid
    widths = [_widths(own.owned, own.layout, first + axis) for axis in cut.axes]
    whole = 1
    for k, (lo, hi) in enumerate(own.owned):
        whole *= 1 if k - first in cut.axes else hi - lo
    found = []
    for offsets in itertools.product(*widths):
        if not any(shift for shift, _ in offsets):
            continue
        rank, n_cells = 0, whole
        for at, n, (shift, width) in zip(here, cut.ranks, offsets, strict=True):
            rank = rank * n + (at + shift) % n
            n_cells *= width
        if rank != place.rank and n_cells:
            found.append((rank, n_cells))
    return found


def _widths(owned: Box, layout: Box, k: int) -> list[tuple[int, int]]:
    """Along a dimension: which block, counted from the own one, and how many cells of it."""
    (lo, hi), (first, last) = owned[k], layout[k]
    n = max(1, hi - lo)
    found = [(0, hi - lo)]
    for sign, left in ((-1, lo - first), (1, last - hi)):
        shift = sign
        while left > 0:
            found.append((shift, min(left, n)))
            left, shift = left - n, shift + sign
    return found


def sampled_ranks(decomposition: Decomposition) -> list[int]:
    """The first rank, the last one, and one in the middle, which has neighbours on all sides.

    Of the inner blocks along an axis one of the longest.
    """
    cut = decomposition
    corners: list[list[int]] = [[], [], []]
    for axis, n_ranks in zip(cut.axes, cut.ranks, strict=True):
        n = cut.shape[axis]
        inner = range(1, n_ranks - 1) or range(n_ranks)
        longest = max(inner, key=lambda c: (n * (c + 1) // n_ranks - n * c // n_ranks, -c))
        for corner, at in zip(corners, (0, longest, n_ranks - 1), strict=True):
            corner.append(at)
    found = []
    for corner in corners:
        rank = 0
        for at, n_ranks in zip(corner, cut.ranks, strict=True):
            rank = rank * n_ranks + at
        found.append(rank)
    return sorted(set(found))
