"""Ranks that are not there: to plan for a job of another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, final

import numpy as np

from backsweep.comm.base import AbstractComm, Messages, Parts
from backsweep.errors import CommError


@final
class PlannedComm(AbstractComm):
    """One of so many ranks that are taken to be like it; nothing can be run or sent.

    Parameters
    ----------
    size : int
    rank : int

    Examples
    --------
    >>> from backsweep.comm import Decomposition
    >>> Decomposition((1000, 800), axes=(0, 1), comm=PlannedComm(64)).local_shape
    (125, 100)
    """

    def __init__(self, size: int, rank: int = 0) -> None:
        if not 0 <= rank < size:
            raise CommError(f"rank {rank} of {size} ranks: it must be from 0 to {size - 1}")
        self.rank, self.size = rank, size

    def __repr__(self) -> str:
        return f"PlannedComm({self.size}, rank={self.rank})"

    def _refuse(self) -> NoReturn:
        raise CommError(f"{self!r} is for planning: nothing can be run or sent on it")

    def allgather(self, value: Any) -> list[Any]:
        """What it would be if all ranks had the same."""
        return [value] * self.size

    def broadcast(self, value: Any) -> Any:
        self._refuse()

    def send(self, value: Any, rank: int) -> None:
        self._refuse()

    def receive(self, rank: int) -> Any:
        self._refuse()

    def messages(self, to_send: Parts, to_receive: Parts, tag: int) -> Messages:
        self._refuse()

    def split(self, color: int, key: int = 0) -> AbstractComm:
        self._refuse()

    def join_parts(self, part: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        self._refuse()

    def swap_parts(self, whole: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        self._refuse()

    def raise_alarm(self, number: int) -> None:
        self._refuse()

    def alarm(self) -> int:
        return 0

    def abort(self, code: int) -> NoReturn:
        self._refuse()
