"""What a schedule says: six frozen actions, and rows of integers for compiled drivers.

A schedule is a stream of actions that knows nothing about models (the idea of
``checkpoint_schedules``). People, tests and the user-protocol driver read actions;
compiled drivers read the *action table*, an int64 array with one row
``(kind, start, stop, slot)`` per action. All ranges are half-open. `Keep` has no row of its
own: `rows.to_rows` writes it as two.

========= ======== ======== ======
kind      start    stop     slot
========= ======== ======== ======
`ADVANCE` start    stop     -1
`STORE`   step     step     slot
`LOAD`    step     step     slot
`DISCARD` step     step     slot
`REVERSE` start    stop     -1
========= ======== ======== ======

In a `STORE` of the state before the one in the work buffer, `stop` is ``step + 1``. A slot
of `DISK_SLOT` means the disk, where a snapshot is known by its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from backsweep.errors import ScheduleError

ADVANCE: Final = 0
STORE: Final = 1
LOAD: Final = 2
DISCARD: Final = 3
REVERSE: Final = 4

ROW_WIDTH: Final = 4

DISK_SLOT: Final = -1
"""Slot of a snapshot on disk in the tables of `rows.to_rows`; `fill` numbers its slots."""


class Level(IntEnum):
    """Where a snapshot, or the residuals of a step, are kept."""

    MEMORY = 0
    DISK = 1


@dataclass(frozen=True, slots=True)
class Advance:
    """Run the steps ``start, ..., stop - 1`` forward, from the state in the work buffer.

    Leaves state `stop` in the work buffer and state ``stop - 1`` in a second one.
    """

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Store:
    """Copy state `step` to a snapshot: the state in the work buffer, or the one before it.

    Only `Online` asks for the one before it, which `Advance` has left in the second buffer.
    """

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Keep:
    """Run `step` forward from the state in the work buffer and keep its residuals.

    Leaves the same states behind as ``Advance(step, step + 1)``, and counts as one advance.
    What is kept takes a slot like a snapshot, but no step can be started from it.
    """

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Load:
    """Copy the snapshot of `step` to the work buffer; the snapshot stays."""

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget the snapshot of `step`, or its residuals: a level never holds both."""

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Reverse:
    """Run the adjoint of step `start`, which is ``stop - 1``; the work buffer is empty then.

    From the residuals of the step if they are kept (in memory before on disk), else from its
    state in the work buffer.
    """

    start: int
    stop: int


Action: TypeAlias = Advance | Store | Keep | Load | Discard | Reverse


def decode(row: Sequence[int], level: Level = Level.MEMORY) -> Action:
    """Turn one row of an action table into the action that it stands for.

    Parameters
    ----------
    row : sequence of 4 int
        ``(kind, start, stop, slot)``.
    level : Level
        Where the snapshot of the row's slot is kept; without meaning for `ADVANCE`
        and `REVERSE`.

    Raises
    ------
    ScheduleError
        If the kind is none of the five.

    Examples
    --------
    >>> decode((ADVANCE, 0, 7, -1))
    Advance(start=0, stop=7)
    """
    kind, start, stop, _ = row
    if kind == ADVANCE:
        return Advance(start, stop)
    if kind == STORE:
        return Store(start, level)
    if kind == LOAD:
        return Load(start, level)
    if kind == DISCARD:
        return Discard(start, level)
    if kind == REVERSE:
        return Reverse(start, stop)
    raise ScheduleError(f"row {tuple(row)} of an action table has the unknown kind {kind}")
