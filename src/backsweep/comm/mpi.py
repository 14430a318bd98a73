"""The ranks of an MPI job; the one module that imports mpi4py.

Whoever waits does so with short sleeps: a blocking call would neither let Python see a signal nor
leave the core to the ranks that still compute. Objects are pickled with their arrays out of band,
so that arrays travel as plain bytes.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from types import TracebackType
from typing import Any, NoReturn, final

import numpy as np
from mpi4py import MPI

from backsweep.comm.base import AbstractComm, Messages, Parts
from backsweep.comm.errors import Agreed

_TAG, _ALARM_TAG, _FIRST_TAG, _N_TAGS = 11, 12, 100, 32_000
_N_SPINS, _N_YIELDS = 100, 1000
_LONGEST_SLEEP = 1e-3  # s
_LAST_WORDS = 0.3  # s: what mpiexec has not read of the output at an abort is lost
_PIECE = 1 << 28
"""Bytes of a message: counts are 32-bit integers."""


@final
class MPIComm(AbstractComm):
    """All ranks of the job, on a communicator of its own; or, of a parent, some of them."""

    is_crowded = True  # more ranks than cores, as far as is known

    def __init__(self, parent: MPIComm | None = None, color: int = 0, key: int = 0) -> None:
        self._parent = parent
        self._comm: MPI.Comm
        if parent is None:
            self._comm = MPI.COMM_WORLD.Dup()
        else:
            self._comm = parent._comm.Split(color, key)
            self.is_crowded = parent.is_crowded
            self.while_waiting = lambda: parent.while_waiting()
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._alarm = 0
        self._alarms_sent: list[MPI.Request] = []

    def broadcast(self, value: Any) -> Any:
        # Along a binomial tree: rank r is served by r without its lowest bit.
        bit = 1
        while bit < self.size:
            if self.rank & bit:
                value = self.receive(self.rank - bit)
                break
            bit <<= 1
        while (bit := bit >> 1) > 0:
            if self.rank + bit < self.size:
                self.send(value, self.rank + bit)
        return value

    def send(self, value: Any, rank: int) -> None:
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        parts = [
            np.frombuffer(head, np.uint8),
            *(np.frombuffer(b.raw(), np.uint8) for b in buffers),
        ]
        self._send_bytes(np.array([len(parts), *(p.size for p in parts)], np.int64), rank)
        for part in parts:
            self._send_bytes(part, rank)

    def receive(self, rank: int) -> Any:
        status = MPI.Status()
        self._wait(lambda: self._comm.Iprobe(rank, _TAG, status))
        sizes = np.empty(status.Get_count(MPI.BYTE) // 8, np.int64)
        self._receive_bytes(sizes, rank)
        parts = [np.empty(n, np.uint8) for n in sizes[1:]]
        for part in parts:
            self._receive_bytes(part, rank)
        return pickle.loads(parts[0].data, buffers=parts[1:])

    def messages(self, to_send: Parts, to_receive: Parts, tag: int) -> Messages:
        return MPIMessages(self, to_send, to_receive, _FIRST_TAG + tag % _N_TAGS)

    def split(self, color: int, key: int = 0) -> AbstractComm:
        # MPI's own call blocks: all should be there before.
        self.allgather(None)
        return MPIComm(self, color, key)

    def join_parts(self, part: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        joined = np.empty(sum(sizes), part.dtype)
        n_bytes = [n * part.itemsize for n in sizes]
        request = self._comm.Iallgatherv(
            [part.view(np.uint8), MPI.BYTE],
            [joined.view(np.uint8), n_bytes, _starts(n_bytes), MPI.BYTE],
        )
        self._wait(request.Test)
        return joined

    def swap_parts(self, whole: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        swapped = np.empty((self.size, sizes[self.rank]), whole.dtype)
        n_bytes = [n * whole.itemsize for n in sizes]
        own = [n_bytes[self.rank]] * self.size
        request = self._comm.Ialltoallv(
            [whole.view(np.uint8), n_bytes, _starts(n_bytes), MPI.BYTE],
            [swapped.reshape(-1).view(np.uint8), own, _starts(own), MPI.BYTE],
        )
        self._wait(request.Test)
        return swapped

    def raise_alarm(self, number: int) -> None:
        if self._parent is not None:
            self._parent.raise_alarm(number)
            return
        if self._alarm:
            return
        self._alarm = number
        # The root tells all others: had each rank to, a signal to all would make n^2 messages.
        for rank in range(1, self.size) if self.is_root else (0,):
            message = [np.array([number], np.int64), MPI.INT64_T]
            self._alarms_sent.append(self._comm.Isend(message, rank, _ALARM_TAG))

    def alarm(self) -> int:
        if self._parent is not None:
            return self._parent.alarm()
        # Matched probes: MPICH over UCX may show a message to Iprobe that Recv then waits for.
        while not self._alarm and (message := self._comm.Improbe(MPI.ANY_SOURCE, _ALARM_TAG)):
            found = np.empty(1, np.int64)
            message.Recv([found, MPI.INT64_T])
            if self.is_root:
                self.raise_alarm(int(found[0]))
            self._alarm = int(found[0])
        return self._alarm

    def abort(self, code: int) -> NoReturn:
        abort_all(code)

    def _send_bytes(self, array: np.ndarray, rank: int) -> None:
        data = array.view(np.uint8)
        for start in range(0, data.size, _PIECE):
            self._wait(self._comm.Isend([data[start : start + _PIECE], MPI.BYTE], rank, _TAG).Test)

    def _receive_bytes(self, array: np.ndarray, rank: int) -> None:
        data = array.view(np.uint8)
        for start in range(0, data.size, _PIECE):
            self._wait(self._comm.Irecv([data[start : start + _PIECE], MPI.BYTE], rank, _TAG).Test)

    def _wait(self, is_done: Callable[[], Any]) -> None:
        """Ask at once, then between turns of other processes, then between short sleeps."""
        for _ in range(1 if self.is_crowded else _N_SPINS):
            if is_done():
                return
        for _ in range(_N_YIELDS):
            if is_done():
                return
            self.while_waiting()
            os.sched_yield()
        pause = 1e-5
        while not is_done():
            self.while_waiting()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_SLEEP)


@final
class MPIMessages(Messages):
    """Persistent requests for the buffers."""

    def __init__(self, comm: MPIComm, to_send: Parts, to_receive: Parts, tag: int) -> None:
        self._comm = comm
        self._sends = [
            comm._comm.Send_init([buffer, MPI.BYTE], rank, tag) for rank, buffer in to_send
        ]
        self._receives = [
            comm._comm.Recv_init([buffer, MPI.BYTE], rank, tag) for rank, buffer in to_receive
        ]
        self._all = [*self._receives, *self._sends]
        self._active: list[MPI.Request] = []
        self._are_done = partial(MPI.Request.Testall, self._active)
        # Before MPI ends, also if nobody closes.
        self._finalizer = weakref.finalize(self, _free, self._sends, self._receives, self._active)

    def start(self) -> None:
        for request in self._all:  # one by one: several may go to one rank, in this order
            request.Start()
        self._active += self._all

    def wait(self) -> None:
        if not MPI.Request.Testall(self._active):
            self._comm._wait(self._are_done)
        self._active.clear()

    def close(self) -> None:
        self._finalizer()


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes[:-1])]


def _free(
    sends: list[MPI.Prequest],
    receives: list[MPI.Prequest],
    active: list[MPI.Request],
) -> None:
    """Give everything back, also what is still on its way because something else has failed."""
    for request in receives:
        if not request.Test():
            request.Cancel()
            request.Wait()
    for persistent in (*sends, *receives):
        persistent.Free()
    for requests in (sends, receives, active):
        requests.clear()


def abort_if_uncaught() -> None:
    """Let an exception that nobody catches end every rank, after its traceback."""
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(kind, error, trace)
        if not isinstance(error, Agreed):  # which all ranks raise
            abort_all(130 if isinstance(error, KeyboardInterrupt) else 1)

    sys.excepthook = hook


def abort_all(code: int) -> NoReturn:
    """End every rank of the job at once, whatever it waits for."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_LAST_WORDS)
    MPI.COMM_WORLD.Abort(code)
    raise SystemExit(code)
