"""What a communicator is, and that of a job with one rank."""

from __future__ import annotations

import os
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn, final

import numpy as np
import numpy.typing as npt

from backsweep.closing import Closing
from backsweep.errors import CommError

_REDUCTIONS: dict[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum}
SMALL = 1 << 12  # bytes: up to here all ranks add everything
PIECE = 1 << 26  # bytes that are reduced at once

Parts = Sequence[tuple[int, np.ndarray]]
"""A rank and the buffer that goes to it or comes from it."""


class Messages(Closing):
    """The same messages sent and received again and again.

    A round is `start` and `wait`.
    """

    @abstractmethod
    def start(self) -> None:
        """Receive and send all messages, into and from their buffers, which stay until `wait`."""

    @abstractmethod
    def wait(self) -> None:
        """Return when all messages of the round have been sent and received."""

    @abstractmethod
    def close(self) -> None:
        """Give the requests back; what was closed cannot be used again."""


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
    _n_tags = 0

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
        if self.size == 1:
            return [value]
        own = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        sizes = self.join_parts(np.array([own.size], np.int64), [1] * self.size)
        joined = self.join_parts(own, sizes.tolist())
        return [pickle.loads(part.data) for part in np.split(joined, np.cumsum(sizes)[:-1])]

    @abstractmethod
    def send(self, value: Any, rank: int) -> None:
        """Hand any object to another rank, which must call `receive`."""

    @abstractmethod
    def receive(self, rank: int) -> Any:
        """What another rank sends to this one."""

    @abstractmethod
    def messages(self, to_send: Parts, to_receive: Parts, tag: int) -> Messages:
        """Contiguous buffers that go to other ranks and come from them again and again.

        Parameters
        ----------
        to_send, to_receive : sequence of (rank, contiguous ndarray of uint8)
            What one rank sends to another in a certain order, that one receives in this order.
        tag : int
            From `new_tag`.
        """

    @abstractmethod
    def split(self, color: int, key: int = 0) -> AbstractComm:
        """The ranks that give the same color, in the order of their keys, then of their ranks.

        Collective: every rank must call. Alarms and aborts stay those of the whole job.
        """

    def allreduce(self, array: npt.ArrayLike, op: str = "sum") -> np.ndarray:
        """The sum of the arrays of all ranks, entry by entry. Collective: every rank must call.

        Parameters
        ----------
        array : array_like
            Of the same shape and dtype on all ranks.
        op : str
            "sum", "max" or "min".

        Returns
        -------
        ndarray, shape and dtype of `array`
            A new array with the same bits on all ranks: ((r0 + r1) + r2) + ..., whatever its
            length. NaN wins in "max" and "min".

        Notes
        -----
        Each rank adds one part of all entries and hands it to the others; a few kB are added by
        each rank for itself, in one message less.
        """
        if op not in _REDUCTIONS:
            raise CommError(f"allreduce: op {op!r} is none of {', '.join(_REDUCTIONS)}")
        given = np.asarray(array)
        flat = given.reshape(-1).copy()
        if self.size == 1 or not flat.size:
            return flat.reshape(given.shape)
        if flat.nbytes <= SMALL:
            terms = self.join_parts(flat, [flat.size] * self.size).reshape(self.size, -1)
            return _fold(_REDUCTIONS[op], terms).reshape(given.shape)
        step = PIECE // flat.itemsize
        for start in range(0, flat.size, step):
            piece = flat[start : start + step]
            ends = [piece.size * k // self.size for k in range(self.size + 1)]
            sizes = [b - a for a, b in pairwise(ends)]
            part = _fold(_REDUCTIONS[op], self.swap_parts(piece, sizes))
            piece[...] = self.join_parts(part, sizes)
        return flat.reshape(given.shape)

    @abstractmethod
    def join_parts(self, part: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """The parts of all ranks, one behind the other. Collective: every rank must call.

        Parameters
        ----------
        part : ndarray, shape (sizes[rank],), contiguous
        sizes : sequence of int
            The same on all ranks.

        Returns
        -------
        ndarray, shape (sum(sizes),)
        """

    @abstractmethod
    def swap_parts(self, whole: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """This rank's part of the arrays of all ranks. Collective: every rank must call.

        Parameters
        ----------
        whole : ndarray, shape (sum(sizes),), contiguous
        sizes : sequence of int
            The same on all ranks.

        Returns
        -------
        ndarray, shape (size, sizes[rank])
            In rank order.
        """

    def new_tag(self) -> int:
        """A number that keeps messages apart. Every rank must ask for as many."""
        self._n_tags += 1
        return self._n_tags

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
class NoMessages(Messages):
    """Those of a rank that talks to no other one."""

    def start(self) -> None:
        pass

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


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

    def split(self, color: int, key: int = 0) -> AbstractComm:
        return self

    def join_parts(self, part: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        return part.copy()

    def swap_parts(self, whole: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        return whole.reshape(1, -1).copy()

    def messages(self, to_send: Parts, to_receive: Parts, tag: int) -> Messages:
        if to_send or to_receive:
            raise ValueError("a job of one rank sends and receives nothing")
        return NoMessages()

    def raise_alarm(self, number: int) -> None:
        self._alarm = self._alarm or number

    def alarm(self) -> int:
        return self._alarm

    def abort(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fold(add: np.ufunc, terms: np.ndarray) -> np.ndarray:
    """((t0 + t1) + t2) + ... along the first axis."""
    total = terms[0].copy()
    for term in terms[1:]:
        add(total, term, out=total)
    return total
