"""What a communicator is, and that of a job with one rank."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn, final


class AbstractComm(ABC):
    """The ranks of a job.

    Attributes
    ----------
    rank, size : int
    while_waiting : callable
        Called again and again while this rank waits for another one.
    """

    rank: int
    size: int
    while_waiting: Callable[[], object] = staticmethod(lambda: None)

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @abstractmethod
    def broadcast(self, value: Any) -> Any:
        """The root's value on every rank. Collective: every rank must call."""

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks in rank order, on the root. Collective: every rank must call."""
        if not self.is_root:
            self.send(value, 0)
            return None
        return [value, *(self.receive(rank) for rank in range(1, self.size))]

    def allgather(self, value: Any) -> list[Any]:
        """The values of all ranks in rank order. Collective: every rank must call."""
        return list(self.broadcast(self.gather(value)))

    @abstractmethod
    def send(self, value: Any, rank: int) -> None:
        """Hand any object to another rank, which must call `receive`."""

    @abstractmethod
    def receive(self, rank: int) -> Any:
        """What another rank sends to this one."""

    @abstractmethod
    def raise_alarm(self, number: int) -> None:
        """Let `alarm` return a number on all ranks soon. Not collective; the first one counts."""

    @abstractmethod
    def alarm(self) -> int:
        """The number of the alarm that a rank has raised, or 0. Quick, and not collective."""

    @abstractmethod
    def abort(self, code: int) -> NoReturn:
        """End the whole job at once with an exit code."""


@final
class SerialComm(AbstractComm):
    """One rank."""

    rank = 0
    size = 1
    _alarm = 0

    def broadcast(self, value: Any) -> Any:
        return value

    def send(self, value: Any, rank: int) -> None:
        raise ValueError(f"a job of one rank sends nothing (to rank {rank})")

    def receive(self, rank: int) -> Any:
        raise ValueError(f"a job of one rank receives nothing (from rank {rank})")

    def raise_alarm(self, number: int) -> None:
        self._alarm = self._alarm or number

    def alarm(self) -> int:
        return self._alarm

    def abort(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
