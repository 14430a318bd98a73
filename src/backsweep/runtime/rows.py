"""Where the rows of a sweep come from: a schedule's table, a stream of actions, or one range.

A row is ``(kind, start, stop, slot)`` (`schedule.actions`). Slots from 0 on are places in
memory. Rows that store, load or discard with the slot `OUTSIDE` name a snapshot that the runtime
keeps by its step: on disk, or the initial state, which stays as it came.

A source knows how to go on when a snapshot is lost: what is left is planned anew from the
snapshots below it, at worst from the initial state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.schedule import (
    ADVANCE,
    DISCARD,
    DISK_SLOT,
    LOAD,
    PHASE,
    REVERSE,
    STORE,
    AbstractSchedule,
    Binomial,
    TableSchedule,
    extra_advances,
    held_state,
    resume_state,
    to_rows,
)

OUTSIDE = -1
"""Slot of rows about a snapshot that is not in the arena."""

ROWS_PER_TABLE = 4096

LOSSES = 8
"""Above the snapshots on disk: where more are lost, the disk itself is, and no more go there."""

MAX_LOSS = 4
"""Times the planned advances above which a run gives up when snapshots are lost."""


@lru_cache(maxsize=1)
def compiled_fill() -> Any:
    """The schedule's table function, compiled."""
    import numba

    from backsweep.schedule.binomial import fill

    try:
        return numba.njit(fill, cache=True)
    except RuntimeError:  # neither the package's nor the user's folder can be written
        return numba.njit(fill)


class RowSource(Protocol):
    """Rows of one phase in blocks; the next call is about the next phase."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Rows up to the end of the phase."""

    def lose(self, n_done: int, error: SnapshotError) -> None:
        """Plan anew: row `n_done` of the block handed out last could not be executed."""


def is_outside(rows: np.ndarray) -> np.ndarray:
    """Which rows are about snapshots that are not in the arena."""
    return (rows[:, 3] == OUTSIDE) & (rows[:, 0] != ADVANCE) & (rows[:, 0] != REVERSE)


class RangeRows:
    """Every step is kept: one row for each phase.

    A sweep that begins in the middle, with the steps [0, at) not kept, advances them again from
    the initial state when it has come back to them.
    """

    def __init__(self, n_steps: int, at: int = 0) -> None:
        self.phases: list[list[tuple[int, ...]]] = [[], []]
        if at < n_steps:
            self.phases = [[(ADVANCE, at, n_steps, -1)], [(REVERSE, at, n_steps, -1)]]
        if at > 0:
            self.phases[-1] += [(LOAD, 0, 0, OUTSIDE), (ADVANCE, 0, at, -1), (REVERSE, 0, at, -1)]

    def reverse_only(self) -> RangeRows:
        """Of a sweep whose forward phase is over."""
        del self.phases[0]
        return self

    def blocks(self) -> Iterator[np.ndarray]:
        rows = self.phases.pop(0)
        if rows:
            yield np.array(rows, np.int64)

    def lose(self, n_done: int, error: SnapshotError) -> None:
        raise error


class TableRows:
    """Rows of the binomial schedule; the lowest `n_outside` slots are not in the arena.

    Parameters
    ----------
    schedule : TableSchedule
    n_outside : int
        The initial state and the snapshots on disk; at least 1.
    state : (stack, head), optional
        From `resume_state`, for a sweep that begins in the middle.
    """

    def __init__(self, schedule: TableSchedule, n_outside: int, state: Any = None) -> None:
        self.n_steps, self.planned = schedule.n_steps, schedule.n_advances
        self.n_outside = n_outside
        self.n_slots = schedule.n_snapshots - n_outside
        self.n_losses_left = n_outside + LOSSES
        self.stack: np.ndarray
        self.head: np.ndarray
        self.stack, self.head = state if state is not None else schedule.start()
        self.table = np.empty((ROWS_PER_TABLE, 4), np.int64)

    def blocks(self) -> Iterator[np.ndarray]:
        fill = compiled_fill()
        phase = self.head[PHASE]
        while self.head[PHASE] == phase:
            self.before = self.stack.copy(), self.head.copy()
            n_rows = fill(self.stack, self.head, self.table)
            if n_rows == 0:
                return
            yield self._placed(self.table[:n_rows])

    def _placed(self, rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[:, 3] = np.maximum(rows[:, 3] - self.n_outside, OUTSIDE)
        return rows

    def lose(self, n_done: int, error: SnapshotError) -> None:
        """The snapshots below the lost one stay; no slot of the arena is in use then.

        Slots are a stack whose bottom is outside: it is touched when nothing lies above.
        """
        held, end, at = _replay(self.before, self.table[:n_done])
        self.n_losses_left -= 1
        is_store = bool(self.table[n_done, 0] == STORE)
        if not is_store:
            held.pop()
        if is_store or self.n_losses_left <= 0:
            # There is no room, or what is written is lost: what is held now is all that fits.
            self.n_outside = len(held)
        n_snapshots = self.n_outside + self.n_slots
        if not held or extra_advances(end, n_snapshots) > MAX_LOSS * (self.planned + 1000):
            raise error
        is_forward = is_store and end == self.n_steps
        self.stack, self.head = resume_state(
            self.n_steps, n_snapshots, held, end, at if is_forward else None
        )


def _replay(before: Any, rows: np.ndarray) -> tuple[list[int], int, int]:
    """Snapshots held, steps left and state in work after some rows of a block."""
    held, end, at = held_state(*before)
    for kind, start, stop, _ in rows.tolist():
        if kind == STORE:
            held.append(start)
        elif kind == DISCARD:
            held.pop()
        elif kind == REVERSE:
            end = start
        else:
            at = stop
    return held, end, at


class StreamRows:
    """Rows of a schedule that is a stream of actions, made by Python.

    After a loss it goes on by the binomial schedule from the initial state.
    """

    def __init__(self, schedule: AbstractSchedule) -> None:
        self.schedule = schedule
        self.tables = to_rows(schedule.actions(), schedule.n_steps, schedule.n_memory)
        self.rest: TableRows | None = None
        self.end = schedule.n_steps

    def blocks(self) -> Iterator[np.ndarray]:
        if self.rest is not None:
            yield from self.rest.blocks()
            return
        for rows in self.tables:
            keyed = (rows[:, 0] != ADVANCE) & (rows[:, 0] != REVERSE)
            rows[keyed & ((rows[:, 1] == 0) | (rows[:, 3] == DISK_SLOT)), 3] = OUTSIDE
            self.block = rows
            yield rows
            self.end = _end_after(rows, self.end)
            if rows[-1, 0] == ADVANCE and rows[-1, 2] == self.schedule.n_steps:
                return

    def lose(self, n_done: int, error: SnapshotError) -> None:
        if self.rest is not None:
            self.rest.lose(n_done, error)
            return
        end = _end_after(self.block[:n_done], self.end)
        n_snapshots = self.schedule.n_memory + 1
        limit = MAX_LOSS * (self.schedule.n_advances + 1000)
        if extra_advances(end, n_snapshots) > limit or self.block[n_done, 0] == STORE:
            raise error
        n = self.schedule.n_steps
        self.rest = resumed_rows(n, self.schedule.n_memory, 1, [0], end)


def _end_after(rows: np.ndarray, end: int) -> int:
    steps = rows[rows[:, 0] == REVERSE, 1]
    return int(steps[-1]) if len(steps) else end


def resumed_rows(
    n: int, n_slots: int, n_outside: int, held: Sequence[int], end: int, at: int | None = None
) -> TableRows:
    """Rows that reverse the steps [0, end) from the snapshots held, all of them outside.

    With `at` the forward sweep goes on from that state first.
    """
    n_snapshots = n_slots + n_outside
    state = resume_state(n, n_snapshots, held, end, at)
    return TableRows(Binomial(n, n_snapshots), n_outside, state)
