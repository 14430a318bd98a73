"""Ctrl-C and the signals of batch systems.

At Ctrl-C the root saves what it has and ends the job; the other ranks wait. While an inversion
runs, `runtime.stop` notes SIGUSR1 and SIGTERM, and all ranks end together.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

#: Exit code of a run that the same command goes on with.
STOPPED = 85

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def die_at_once() -> None:
    """Until the ranks are connected: there is nothing to save, and no way to end the others.

    An exception would arise inside of an import, and leave ranks alone that start MPI.
    """
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    # Nothing is lost: the same command goes on, with whatever there is.
    signal.signal(signal.SIGUSR1, lambda number, frame: os._exit(STOPPED))


def handle_signals(is_root: bool) -> None:
    """Let the root raise `KeyboardInterrupt`, and the other ranks wait for the root."""
    for number in _HANDLED:
        signal.signal(number, _interrupt if is_root else signal.SIG_IGN)
    # It is for inversions: nobody should start one again that has just ended.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _received.append(number)
    raise KeyboardInterrupt


def check() -> None:
    """Raise what was lost: Python drops an exception that arises inside a finaliser."""
    if _received:
        raise KeyboardInterrupt


def exit_code(signal_name: str = "") -> int:
    """As shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
    if signal_name:
        return 128 + signal.Signals[signal_name]
    return 128 + (_received[0] if _received else signal.SIGINT)
