"""What every schedule offers: its size, its predicted cost and its actions.

Those whose snapshots form a stack also write their rows for compiled drivers themselves
(`TableSchedule`); the streams of the others are turned into rows by `rows.to_rows`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import ROW_WIDTH, Action, Level, decode

MAX_STEPS: Final = 2**31
"""Longest schedule: the products in the compiled table functions then fit into 64 bits."""

_ROWS_PER_FILL = 256


class AbstractSchedule(ABC):
    """A stream of actions that reverses `n_steps` steps with at most `n_snapshots` snapshots.

    The stream has two phases. The first ends with the first ``Advance(_, n_steps)``; the
    caller then evaluates the loss. The second begins with ``Reverse(n_steps - 1, n_steps)``.
    A schedule of no steps has no actions.
    """

    __slots__ = ()

    n_steps: int
    n_snapshots: int

    @property
    def n_memory(self) -> int:
        """Slots that may be filled in memory at a time; a kept step fills one as well."""
        return self.n_snapshots

    @property
    def n_disk(self) -> int:
        """Slots that may be filled on disk at a time."""
        return 0

    @property
    @abstractmethod
    def n_advances(self) -> int:
        """Number of single steps that the schedule will run forward."""

    @abstractmethod
    def actions(self) -> Iterator[Action]:
        """All actions in order, made one after the other."""


class TableSchedule(AbstractSchedule):
    """A schedule whose snapshots form a stack, so that compiled code can make its rows."""

    __slots__ = ()

    @abstractmethod
    def start(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fresh ``(stack, head)`` for `fill`, before the first action."""

    @staticmethod
    @abstractmethod
    def fill(stack: NDArray[np.int64], head: NDArray[np.int64], table: NDArray[np.int64]) -> int:
        """Write the next rows of the action table; a plain function that Numba compiles."""

    def level_of(self, slot: int) -> Level:
        """Where the snapshot in `slot` is kept."""
        return Level.MEMORY

    def actions(self) -> Iterator[Action]:
        """All actions in order, made by the uncompiled `fill`."""
        stack, head = self.start()
        table = np.empty((_ROWS_PER_FILL, ROW_WIDTH), np.int64)
        while n_rows := self.fill(stack, head, table):
            for row in table[:n_rows].tolist():
                yield decode(row, self.level_of(row[3]))


def check_n_steps(n_steps: int) -> None:
    """Refuse a number of steps that no schedule can be made for."""
    if not 0 <= n_steps <= MAX_STEPS:
        raise ScheduleError(f"n_steps = {n_steps} must lie between 0 and {MAX_STEPS}")
