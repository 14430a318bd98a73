"""Keep every state: no step is advanced twice.

The limit of `binomial` in which there are as many snapshots as states to come back to
(r = 1), hence made by the same `fill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from backsweep.schedule.base import TableSchedule, check_n_steps
from backsweep.schedule.binomial import fill, initial_state


@final
@dataclass(frozen=True, slots=True)
class StoreAll(TableSchedule):
    """Advance every step once, keep every state, reverse all.

    Parameters
    ----------
    n_steps : int
        Number of steps, 0 to 2**31.

    Raises
    ------
    ScheduleError
        If `n_steps` is out of its range.

    Notes
    -----
    n advances, n reverse steps, n - 1 stores and loads. The states 0 to n - 2 are stored;
    state n - 1 is in the work buffer when its step is reversed. Slot k holds state k.

    Examples
    --------
    >>> StoreAll(1000).n_advances, StoreAll(1000).n_snapshots
    (1000, 999)
    """

    n_steps: int

    fill = staticmethod(fill)

    def __post_init__(self) -> None:
        check_n_steps(self.n_steps)

    @property
    def n_snapshots(self) -> int:  # type: ignore[override]
        """Snapshots held at the end of the forward phase."""
        return max(self.n_steps - 1, min(self.n_steps, 1))

    @property
    def n_advances(self) -> int:
        """The single steps that the schedule will run forward: each once."""
        return self.n_steps

    def start(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fresh ``(stack, head)`` for `fill`, before the first action."""
        return initial_state(self.n_steps, max(self.n_snapshots, 1))
