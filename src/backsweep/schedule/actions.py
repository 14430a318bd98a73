"""What a schedule says: five frozen actions, and the same five as rows of integers.

A schedule is a stream of actions that knows nothing about models (the idea of
``checkpoint_schedules``). People, tests and the user-protocol driver read actions;
compiled drivers read the *action table*, an int64 array with one row
``(kind, start, stop, slot)`` per action. All ranges are half-open.

========= ======== ======== ======
kind      start    stop     slot
========= ======== ======== ======
`ADVANCE` start    stop     -1
`STORE`   step     step     slot
`LOAD`    step     step     slot
`DISCARD` step     step     slot
`REVERSE` start    stop     -1
========= ======== ======== ======
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


class Level(IntEnum):
    """Where a snapshot is kept."""

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
    """Copy the state in the work buffer, which is that of `step`, to a snapshot."""

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Load:
    """Copy the snapshot of `step` to the work buffer; the snapshot stays."""

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget the snapshot of `step`."""

    step: int
    level: Level


@dataclass(frozen=True, slots=True)
class Reverse:
    """Run the adjoint of the steps ``stop - 1, ..., start``; uses up the state in work."""

    start: int
    stop: int


Action: TypeAlias = Advance | Store | Load | Discard | Reverse


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
