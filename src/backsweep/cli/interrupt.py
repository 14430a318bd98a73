"""Ctrl-C and SIGTERM: the root saves what it has and ends the job; the other ranks wait."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from backsweep import config

_received: list[int] = []


def handle_signals() -> None:
    """Let the root raise `KeyboardInterrupt`, and the other ranks wait for the root."""
    is_root = config.launched_rank() in (None, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt if is_root else signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _received.append(number)
    raise KeyboardInterrupt


def check() -> None:
    """Raise what was lost: Python drops an exception that arises inside a finaliser."""
    if _received:
        raise KeyboardInterrupt


def exit_code() -> int:
    """As shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_received[0] if _received else signal.SIGINT)
