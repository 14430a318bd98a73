"""Faults on demand: tests kill, fail or fill the disk at any named moment of a file's life.

``BACKSWEEP_FAULT="name:count:action"`` acts when the point `name` is reached for the
`count`-th time: ``kill`` sends SIGKILL to the process, ``raise`` is an I/O error, ``full`` a
full disk. Where it is unset a point costs one look at the environment.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from backsweep import config

WRITTEN: Final = ("snapshot", "point", "attached", "record", "manifest", "result")
"""What is written under a temporary name and renamed."""

_MOMENTS = ("before-write", "during-write", "before-sync", "before-rename", "after-rename")

POINTS: Final = (
    *(
        f"{what}.{moment}"
        for what in WRITTEN
        for moment in _MOMENTS
        # A snapshot can be recomputed: it is not synced.
        if (what, moment) != ("snapshot", "before-sync")
    ),
    "delete.before",
    "delete.after",
)
"""All points that storage passes."""

_counts: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))


def reached(point: str) -> None:
    """Do what the environment asks for at this point: as a rule nothing.

    Raises
    ------
    OSError
        If the environment asks for a failure here.
    """
    wanted = config.fault_point()
    if wanted:
        _act(point, *wanted.split(":"))


def _act(point: str, name: str, count: str = "1", action: str = "kill") -> None:
    if name not in POINTS or action not in ("kill", "raise", "full"):
        raise ValueError(f"BACKSWEEP_FAULT={name}:{count}:{action} names no fault; {POINTS} are")
    if point != name or next(_counts[name]) != int(count):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = errno.ENOSPC if action == "full" else errno.EIO
    raise OSError(number, os.strerror(number))
