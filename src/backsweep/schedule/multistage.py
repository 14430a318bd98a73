"""Binomial checkpointing with two levels: the coldest snapshots go to disk.

The bottom of the stack is visited least often, so the slots ``[0, n_disk)`` are the disk's
and the rest the memory's: `fill` and the number of advances are those of `Binomial`.

Source: Stumm & Walther 2009, see `Multistage`.

Known to be suboptimal: a disk that is slow against a step calls for fewer disk snapshots and
more advances (H-Revolve, Herrmann & Pallez 2020, through `from_checkpoint_schedules`); and
"the bottom is coldest" holds for long runs only, see the notes of `Multistage`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import Level
from backsweep.schedule.base import TableSchedule, check_n_steps
from backsweep.schedule.binomial import (
    check_n_snapshots,
    extra_advances,
    fill,
    initial_state,
)


@final
@dataclass(frozen=True, slots=True)
class Multistage(TableSchedule):
    """The binomial schedule with `n_memory` snapshots in memory and `n_disk` on disk.

    Parameters
    ----------
    n_steps : int
        Number of steps, 0 to 2**31.
    n_memory, n_disk : int
        Snapshots that may be held at a time at each level, together at least 1; the initial
        state is one of them. `n_disk` is reduced to what is of use: memory is filled first.

    Raises
    ------
    ScheduleError
        If a number is out of its range.

    Notes
    -----
    The slots ``[0, n_disk)`` are on disk. ``extra_advances(n, n_memory + n_disk) + 1``
    advances, n reverse steps, n - 1 loads.

    Disk writes and reads are the fewest that a choice of `n_disk` slots can give where n is
    less than twice the number of snapshots, and to 2 % where it is more than 20 times that.
    Between, slots in the middle of the stack are loaded most often, and the rule makes up to
    7 % more transfers at 10 to 20 times, 17 % at 6 to 10, 27 % at 4 to 6, 39 % at 3 to 4 and
    65 % at 2 to 3 times: in such short runs at most 0.4 of a transfer per step (measured).

    References
    ----------
    Stumm & Walther 2009, SIAM J. Sci. Comput. 31(3), 1946-1967, doi:10.1137/080718036.

    Examples
    --------
    >>> schedule = Multistage(n_steps=1000, n_memory=5, n_disk=15)
    >>> schedule.n_advances, schedule.level_of(14).name, schedule.level_of(15).name
    (2748, 'DISK', 'MEMORY')
    """

    n_steps: int
    n_memory: int = field()
    n_disk: int = field()

    fill = staticmethod(fill)

    def __post_init__(self) -> None:
        check_n_steps(self.n_steps)
        if min(self.n_memory, self.n_disk) < 0:
            raise ScheduleError(
                f"n_memory = {self.n_memory} and n_disk = {self.n_disk} must not be negative"
            )
        check_n_snapshots(self.n_memory + self.n_disk)
        of_use = max(self.n_steps - 1, 1)
        n_disk = min(self.n_disk, max(of_use - self.n_memory, 0))
        object.__setattr__(self, "n_disk", n_disk)

    @property
    def n_snapshots(self) -> int:  # type: ignore[override]
        """Snapshots that may be held at a time, at both levels together."""
        return self.n_memory + self.n_disk

    @property
    def n_advances(self) -> int:
        """``t(n, s) + 1``: the single steps that the schedule will run forward."""
        return extra_advances(self.n_steps, self.n_snapshots) + 1 if self.n_steps else 0

    def start(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fresh ``(stack, head)`` for `fill`, before the first action."""
        return initial_state(self.n_steps, self.n_snapshots)

    def level_of(self, slot: int) -> Level:
        """Where the snapshot in `slot` is kept."""
        return Level.DISK if slot < self.n_disk else Level.MEMORY
