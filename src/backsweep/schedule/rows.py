"""Turn any stream of actions into action tables for a compiled driver.

Schedules with a stack of snapshots write their rows themselves (`base.TableSchedule`). For
the others a `RowWriter` follows what is held and gives out slots. Rows are as in `actions`:

* A snapshot in memory gets the lowest free slot below `n_memory`; it goes back when the
  snapshot is discarded. A snapshot on disk has the slot `DISK_SLOT`, and its step as key.
* The compiled reverse kernel makes residuals from a state, in registers, so that a state
  stands for the residuals of a step: ``Keep(n)`` becomes ``STORE n, ADVANCE n n+1``, and the
  `Reverse` of a kept step ``LOAD n, REVERSE n n+1``. For the last step of all the load is
  left out: its state is in the work buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeAlias, assert_never, final

import numpy as np
from numpy.typing import NDArray

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import (
    ADVANCE,
    DISCARD,
    DISK_SLOT,
    LOAD,
    REVERSE,
    ROW_WIDTH,
    STORE,
    Action,
    Advance,
    Discard,
    Keep,
    Level,
    Load,
    Reverse,
    Store,
)

Row: TypeAlias = tuple[int, int, int, int]


@final
@dataclass(slots=True)
class RowWriter:
    """Writes the rows of one action after the other.

    Parameters
    ----------
    n_memory : int
        Slots in memory.
    """

    n_memory: int
    slots: dict[tuple[int, Level], int] = field(default_factory=dict)
    """Slot of each snapshot held; read it to know what is held and where."""
    kept: set[tuple[int, Level]] = field(default_factory=set)
    """Those of them that stand for the residuals of their step."""
    free: list[int] = field(default_factory=list)
    at: int = 0
    """Step whose state is in the work buffer."""
    is_forward: bool = True

    def __post_init__(self) -> None:
        self.free = list(range(self.n_memory))

    def rows(self, action: Action) -> list[Row]:
        """The rows of an action, and what is held after them.

        Raises
        ------
        ScheduleError
            If there is no slot left, or nothing held where the action says so.
        """
        match action:
            case Advance(start, stop):
                self.at = stop
                return [(ADVANCE, start, stop, -1)]
            case Store(step, level):
                return [(STORE, step, self.at, self.take(step, level))]
            case Keep(step, level):
                self.kept.add((step, level))
                self.at = step + 1
                return [
                    (STORE, step, step, self.take(step, level)),
                    (ADVANCE, step, step + 1, -1),
                ]
            case Load(step, level):
                self.at = step
                return [(LOAD, step, step, self.slot(step, level))]
            case Discard(step, level):
                slot = self.slot(step, level)
                del self.slots[step, level]
                self.kept.discard((step, level))
                if level is Level.MEMORY:
                    heappush(self.free, slot)
                return [(DISCARD, step, step, slot)]
            case Reverse(start, stop):
                return self.reverse(start, stop)
        assert_never(action)

    def reverse(self, start: int, stop: int) -> list[Row]:
        row = (REVERSE, start, stop, -1)
        levels = [level for level in Level if (start, level) in self.kept]
        is_last, self.is_forward = self.is_forward, False
        if not levels or is_last:
            return [row]
        return [(LOAD, start, start, self.slots[start, levels[0]]), row]

    def take(self, step: int, level: Level) -> int:
        if level is Level.MEMORY and not self.free:
            raise ScheduleError(
                f"no slot is left for state {step}: all {self.n_memory} in memory are taken"
            )
        slot = DISK_SLOT if level is Level.DISK else heappop(self.free)
        self.slots[step, level] = slot
        return slot

    def slot(self, step: int, level: Level) -> int:
        if (step, level) not in self.slots:
            raise ScheduleError(f"nothing is held of step {step} at level {level.name}")
        return self.slots[step, level]


def to_rows(
    actions: Iterable[Action], n_steps: int, n_memory: int, n_rows: int = 4096
) -> Iterator[NDArray[np.int64]]:
    """The action tables of a stream, lazily.

    Parameters
    ----------
    actions : iterable of Action
        A whole stream, of both phases.
    n_steps : int
        Number of steps.
    n_memory : int
        Slots in memory.
    n_rows : int
        Most rows of a table, at least 1.

    Yields
    ------
    table : ndarray, shape (at most n_rows, 4), int64
        A new one each time. One ends with the row that ends the forward phase, the first
        ``ADVANCE _ n_steps``, so that the caller can evaluate the loss, and the actions
        behind it are asked for only when the next table is.

    Examples
    --------
    >>> from backsweep.schedule import Mixed
    >>> forward, reverse = to_rows(Mixed(3, 2).actions(), n_steps=3, n_memory=2)
    >>> forward.tolist()
    [[1, 0, 0, 0], [0, 0, 1, -1], [1, 1, 1, 1], [0, 1, 2, -1], [0, 2, 3, -1]]
    """
    writer = RowWriter(n_memory)
    block: list[Row] = []
    loss_is_due = n_steps > 0
    for action in actions:
        for row in writer.rows(action):
            block.append(row)
            ends_phase = loss_is_due and row[0] == ADVANCE and row[2] == n_steps
            if ends_phase or len(block) >= n_rows:
                loss_is_due = loss_is_due and not ends_phase
                yield np.array(block, np.int64).reshape(-1, ROW_WIDTH)
                block = []
    if block:
        yield np.array(block, np.int64).reshape(-1, ROW_WIDTH)
