"""Signals by which a batch system asks a job to end: noted, and served between pieces of work.

SIGUSR1 is what ``#SBATCH --signal=B:USR1@180`` sends before the time limit, SIGTERM what comes
before SIGKILL. A run that can be resumed makes itself durable and ends with exit code 85.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backsweep.errors import Stopped

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_received: list[signal.Signals] = []
_is_watching: list[bool] = []


@contextmanager
def watching() -> Iterator[None]:
    """Within the block the signals are noted instead of ending the process.

    May be nested; the outermost block puts the former handlers back. In a thread other than the
    main one, where Python allows no handlers, it does nothing.
    """
    if _is_watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    former: dict[signal.Signals, Any] = {}
    _received.clear()
    _is_watching.append(True)
    try:
        for number in SIGNALS:
            former[number] = signal.signal(number, _note)
        yield
    finally:
        _is_watching.clear()
        for number, handler in former.items():
            signal.signal(number, handler)


def _note(number: int, frame: Any) -> None:
    _received.append(signal.Signals(number))


def requested() -> str:
    """The name of the signal that came; empty if none did."""
    return _received[0].name if _received else ""


def is_under_way() -> bool:
    """Whether a signal came to a run that heeds it and has not ended yet."""
    return bool(_is_watching and _received)


def stopped(where: str) -> Stopped:
    """The exception that ends a run that has been made durable."""
    return Stopped(requested(), where)
