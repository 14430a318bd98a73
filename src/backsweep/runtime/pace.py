"""How many steps a call of compiled code runs, and after which calls a sweep pauses.

A sweep of one process looks at the clock after each call. Ranks that hold blocks of one grid look
at it together: they pause after the same steps, so that what happens in a pause can be agreed on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np

from backsweep.comm import AbstractComm

MAX_SECONDS_PER_CALL = 0.5


class AbstractPace(ABC):
    """Steps of the next call.

    Attributes
    ----------
    steps : int
        That are run between two pauses.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @property
    @abstractmethod
    def room(self) -> int:
        """The most steps of the next call; at least 1."""

    @abstractmethod
    def spent(self, n_steps: int, seconds: float) -> bool:
        """Told after each call how long it took; whether to pause now."""

    def _adapt(self, n_steps: int, seconds: float) -> None:
        if n_steps >= self.steps // 2 and seconds < MAX_SECONDS_PER_CALL / 4:
            self.steps *= 4
        elif seconds > MAX_SECONDS_PER_CALL:
            self.steps = max(1, self.steps // 2)


@final
class OwnPace(AbstractPace):
    """Of a process that runs whole arrays: a pause after each call."""

    @property
    def room(self) -> int:
        return self.steps

    def spent(self, n_steps: int, seconds: float) -> bool:
        self._adapt(n_steps, seconds)
        return True


@final
class SharedPace(AbstractPace):
    """Of ranks that run blocks: pauses at the same steps on all. Collective: every rank must make
    one, and run the same steps.

    Parameters
    ----------
    steps : int
        The rank's own guess.
    comm : AbstractComm
    """

    def __init__(self, steps: int, comm: AbstractComm) -> None:
        super().__init__(int(comm.allreduce(np.array([steps], np.int64), "min")[0]))
        self.comm, self._n, self._seconds = comm, 0, 0.0

    @property
    def room(self) -> int:
        return self.steps - self._n

    def spent(self, n_steps: int, seconds: float) -> bool:
        self._n += n_steps
        self._seconds += seconds
        if self._n < self.steps:
            return False
        # That of the slowest, so that all go on with the same number.
        slowest = float(self.comm.allreduce(np.array([self._seconds]), "max")[0])
        n, self._n, self._seconds = self._n, 0, 0.0
        self._adapt(n, slowest)
        return True
