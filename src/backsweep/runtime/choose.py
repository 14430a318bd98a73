"""From a budget in bytes to a schedule: one scan, then all scans that share a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backsweep.errors import BudgetError, ScheduleError
from backsweep.runtime.checkpointing import Checkpointing, format_bytes
from backsweep.runtime.rows import ROWS_PER_TABLE, compiled_fill
from backsweep.schedule import (
    DISCARD,
    ROW_WIDTH,
    AbstractSchedule,
    Binomial,
    Mixed,
    Multistage,
    OnlineRun,
    StoreAll,
    beta,
    extra_advances,
    from_checkpoint_schedules,
)

FILE_SECONDS, FILE_RATE = 2e-4, 2e9
"""Of a snapshot on disk: seconds for the file, and bytes per second (decision 0014)."""

MAX_COUNTED = 20_000
"""Steps of the run on which disk traffic is counted."""

BUFFERS = 3
"""States in the buffers of disk traffic: two that are written, one that is read ahead."""

MOST_ONLINE = 64
"""Snapshots of a loop: more cost more in bookkeeping than they save in advances."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a scan would need.

    Attributes
    ----------
    n_steps : int
        Negative for a loop whose end is found on the way.
    slot_bytes : int
        One state in the arena.
    file_bytes : int
        One state on disk.
    all_bytes : int
        All states, components that are handed on once.
    advance_seconds : float
        About what a step takes; infinite where it is not known, so that the disk is worth it.
    """

    n_steps: int
    slot_bytes: int
    file_bytes: int
    all_bytes: int
    advance_seconds: float = float("inf")

    def least(self, repetition: int) -> int:
        """Bytes in memory with which no step is advanced more often than that."""
        if repetition <= 1:
            return self.all_bytes
        if self.n_steps < 0:
            return max(1, MOST_ONLINE // repetition) * self.slot_bytes
        low, high = 1, max(1, self.n_steps - 1)
        while low < high:
            middle = (low + high) // 2
            if beta(middle, repetition) >= self.n_steps:
                high = middle
            else:
                low = middle + 1
        return low * self.slot_bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule, and where its snapshots go.

    Attributes
    ----------
    schedule : AbstractSchedule
    n_slots : int
        Snapshots in the arena; the initial state is kept besides, as it came.
    n_disk : int
        Snapshots on disk.
    n_buffers : int
        States in the buffers of disk traffic; 0: the run waits for each.
    memory : int
        What may be kept instead of all states [bytes].
    """

    schedule: AbstractSchedule
    n_slots: int
    n_disk: int = 0
    n_buffers: int = 0
    memory: int = 0

    @property
    def keeps_all(self) -> bool:
        return isinstance(self.schedule, StoreAll)


def choose(request: Checkpointing, demand: Demand, memory: int, disk: int) -> Choice:
    """The schedule of one scan with budgets of its own [bytes].

    Raises
    ------
    BudgetError
        If nothing fits.
    """
    n, name = demand.n_steps, request.schedule
    if n < 0:
        return _online(request, demand, memory)
    if not isinstance(name, str):
        return _foreign(request, n)
    fits = demand.all_bytes <= memory
    if name == "store_all" and not fits and request.memory is None and not request.uses_disk:
        fits = True  # as asked for: there is no budget that it could break
    if n < 2 or (fits and request.snapshots is None and name in ("auto", "store_all")):
        return Choice(StoreAll(n), 0, memory=max(memory, demand.all_bytes))
    if request.snapshots is not None and not request.uses_disk:
        in_memory, most = request.snapshots, request.snapshots
    else:
        in_memory = memory // max(1, demand.slot_bytes)
        most = n - 1 if request.snapshots is None else request.snapshots
    if name in ("mixed", "online"):
        _check_number(in_memory, demand, memory)
        s = min(in_memory, n)
        return Choice(Mixed(n, s) if name == "mixed" else OnlineRun(n, s), s)
    most = max(1, min(most, n - 1))
    n_buffers = 0
    if request.uses_disk and in_memory < most:
        n_buffers = BUFFERS if in_memory > 2 * BUFFERS else 0
        in_memory = max(1, in_memory - n_buffers)
    else:
        _check_number(in_memory, demand, memory)
    s = min(in_memory, most)
    n_disk = 0
    if request.uses_disk:
        n_disk = min(most - s, disk // max(1, demand.file_bytes))
        if most > 1 and n_disk == 0:
            _check_number(max(memory, disk) // max(1, demand.slot_bytes), demand, max(memory, disk))
        if name == "auto" and request.snapshots is None:
            n_disk = _worth_it(demand, s, n_disk)
    if name == "store_all" and s + n_disk < n - 1:
        raise BudgetError(
            f"store_all needs {format_bytes(demand.all_bytes)} for {n} steps, more than "
            f"the budget of {format_bytes(memory)} in memory and {format_bytes(disk)} on disk; "
            "use schedule='auto'"
        )
    if n_disk == 0:
        s += min(n_buffers, most - s)  # nothing is buffered
        return Choice(Binomial(n, s), s - 1)
    return Choice(Multistage(n, s - 1, n_disk + 1), s - 1, n_disk, n_buffers)


def _worth_it(demand: Demand, s: int, most: int) -> int:
    """How many snapshots on disk cost least time, besides `s` in memory.

    Of 0, 1, 3, 7, ... and `most`. Files of small states take longer than the steps that they save.
    """
    n, each = demand.n_steps, FILE_SECONDS + demand.file_bytes / FILE_RATE
    known = demand.advance_seconds
    if known == float("inf") or most == 0:
        return most

    def seconds(n_disk: int) -> float:
        advances = extra_advances(n, s + n_disk) * known
        return advances + (disk_transfers(n, s, n_disk) * each if n_disk else 0.0)

    candidates = [2**k - 1 for k in range(most.bit_length()) if 2**k - 1 < most]
    return min((*candidates, most), key=seconds)


def disk_transfers(n: int, s: int, n_disk: int) -> float:
    """Snapshots written to and read from disk, about; counted on a shorter run where it is long."""
    m = min(n, MAX_COUNTED)
    part = m / n
    on_disk = max(1, round(n_disk * part))
    schedule = Multistage(m, max(1, round(s * part)) if part < 1 else s, on_disk + 1)
    (stack, head), n_rows = schedule.start(), 1
    table, count = np.empty((ROWS_PER_TABLE, ROW_WIDTH), np.int64), 0
    while n_rows:
        n_rows = compiled_fill()(stack, head, table)
        rows = table[:n_rows]
        is_disk = (rows[:, 3] >= 0) & (rows[:, 3] <= on_disk) & (rows[:, 1] > 0)
        count += int(np.sum(is_disk & (rows[:, 0] != DISCARD)))
    return count / part


def _check_number(s: int, demand: Demand, memory: int) -> None:
    if s < 1:
        raise BudgetError(
            f"the budget of {format_bytes(memory)} is smaller than one state of "
            f"{format_bytes(demand.slot_bytes)}; raise memory=, or give disk= and directory="
        )


def _online(request: Checkpointing, demand: Demand, memory: int) -> Choice:
    """Of a loop: snapshots in memory, their number known, their steps not."""
    if request.schedule not in ("auto", "online") or request.uses_disk:
        what = "disk=" if request.uses_disk else f"schedule={request.schedule!r}"
        raise ScheduleError(
            f"{what} needs the number of steps, which a while_loop finds on its way: use "
            "schedule='online' with memory= or snapshots="
        )
    s = request.snapshots
    if s is None:
        s = min(memory // max(1, demand.slot_bytes), MOST_ONLINE)
        _check_number(s, demand, memory)
    return Choice(OnlineRun(0, s), s - 1)


def _foreign(request: Checkpointing, n: int) -> Choice:
    """An object of checkpoint_schedules."""
    if n < 1:
        return Choice(StoreAll(n), 0)
    schedule = from_checkpoint_schedules(request.schedule, n)
    if schedule.n_disk and not request.uses_disk:
        raise ScheduleError(
            f"{type(request.schedule).__name__} keeps snapshots on disk: give disk= and directory="
        )
    return Choice(schedule, schedule.n_memory, schedule.n_disk)


def share(
    request: Checkpointing, alive: Sequence[Demand], items: Sequence[Sequence[Demand]]
) -> list[Choice]:
    """Schedules of all scans of one request, which share its budgets.

    Parameters
    ----------
    alive : sequence of Demand
        Trajectories that are there at the same time.
    items : sequence of sequences of Demand
        Of the items of a sum: those of one item at a time, besides `alive`.

    Returns
    -------
    list of Choice
        For `alive`, then for all items.

    Notes
    -----
    The bytes go to the scans in proportion to what each needs if no step is advanced more often
    than r times, with the least r for which all fit: near the fewest recomputations, exactly so
    for one scan.
    """
    memory, disk = request.memory_budget(), request.disk_budget()
    return [
        choose(request, demand, int(memory * part), int(disk * part))
        for demand, part in zip(
            (*alive, *(d for item in items for d in item)),
            _parts(alive, items, memory),
            strict=True,
        )
    ]


def _parts(alive: Sequence[Demand], items: Sequence[Sequence[Demand]], memory: int) -> list[float]:
    """Which part of the budget each scan gets."""
    demands = (*alive, *(d for item in items for d in item))
    if len(alive) + max(map(len, items), default=0) <= 1:
        return [1.0] * len(demands)
    repetition = 1
    while True:
        outer = sum(d.least(repetition) for d in alive)
        inner = max((sum(d.least(repetition) for d in item) for item in items), default=0)
        if outer + inner <= memory or repetition >= 64:
            break
        repetition += 1
    total = max(1, outer + inner)
    parts = [d.least(repetition) / total for d in alive]
    for item in items:
        own = max(1, sum(d.least(repetition) for d in item))
        parts += [d.least(repetition) / own * (1 - outer / total) for d in item]
    return parts
