"""Signals by which a batch system asks a job to end: noted, and served between pieces of work.

SIGUSR1 is what ``#SBATCH --signal=B:USR1@180`` sends before the time limit, SIGTERM what comes
before SIGKILL. A run that can be resumed makes itself durable and ends with exit code 85. A
signal to one rank of a job is an alarm to all of them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from backsweep.comm import AbstractComm
from backsweep.errors import Stopped

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_received: list[signal.Signals] = []
_is_watching: list[bool] = []
_comms: list[AbstractComm] = []
_may_abandon: list[bool] = []


@contextmanager
def watching(comm: AbstractComm | None = None) -> Iterator[None]:
    """Within the block the signals are noted instead of ending the process.

    May be nested; the outermost block puts the former handlers back. In a thread other than the
    main one, where Python allows no handlers, it does nothing.

    Parameters
    ----------
    comm : AbstractComm, optional
        Of ranks that stop together: a signal to one counts for all. Of the outermost block.
    """
    if _is_watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    former: dict[signal.Signals, Any] = {}
    _received.clear()
    _is_watching.append(True)
    try:
        if comm is not None:
            _comms.append(comm)
            comm.while_waiting = requested
        for number in SIGNALS:
            former[number] = signal.signal(number, _note)
        yield
    finally:
        _is_watching.clear()
        if comm is not None:
            _comms.clear()
            del comm.while_waiting
        for number, handler in former.items():
            signal.signal(number, handler)


def _note(number: int, frame: Any) -> None:
    _received.append(signal.Signals(number))


def requested() -> str:
    """The name of the signal that came, to this rank or another; empty if none did."""
    for comm in _comms:
        if _received:
            comm.raise_alarm(_received[0])
        elif number := comm.alarm():
            _received.append(signal.Signals(number))
    return _received[0].name if _received else ""


def agreed(comm: AbstractComm) -> str:
    """As `requested`, the same on all ranks. Collective: every rank must call."""
    own = requested()
    number = _received[0] if own else 0
    number = int(comm.allreduce(np.array([number], np.int64), "max")[0])
    if number and not own:
        _received.append(signal.Signals(number))
    return signal.Signals(number).name if number else ""


def is_under_way() -> bool:
    """Whether a signal came to a run that heeds it and has not ended yet."""
    return bool(_is_watching and _received)


def stopped(where: str) -> Stopped:
    """The exception that ends a run that has been made durable."""
    return Stopped(requested(), where)


@contextmanager
def abandoning() -> Iterator[None]:
    """Within the block scans that cannot be resumed end with `Stopped` when a signal came."""
    with _setting(True):
        yield


@contextmanager
def finishing() -> Iterator[None]:
    """Within the block they do not: they are parts of what makes itself durable as a whole."""
    with _setting(False):
        yield


@contextmanager
def _setting(value: bool) -> Iterator[None]:
    _may_abandon.append(value)
    try:
        yield
    finally:
        _may_abandon.pop()


def may_abandon() -> bool:
    """Whether scans that cannot be resumed end when a signal came."""
    return bool(_may_abandon and _may_abandon[-1])


def abandon_if_requested() -> None:
    """Called between the pieces of a scan that cannot be resumed. Raises `Stopped`."""
    if may_abandon() and requested():
        raise stopped("")


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Within the block Ctrl-C is noted, and raised behind it; a second one is raised at once.

    For compiled code that calls back: what Python raises as it enters a callback is lost, and with
    it what the code has asked for.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(handler):
        yield
        return
    noted: list[FrameType | None] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(frame)
        if len(noted) > 1:
            handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if noted:  # also behind an error, which it then names as its context
            handler(signal.SIGINT, noted[0])
