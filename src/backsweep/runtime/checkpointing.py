"""What the user asks of checkpointing, and the schedule that follows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal as Choice

from backsweep.errors import BudgetError, ScheduleError
from backsweep.runtime.memory import available_bytes
from backsweep.schedule import Binomial, StoreAll, TableSchedule

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(value: int | float | str) -> int:
    """Bytes from a number or a text such as "200 MB" or "2 GiB"."""
    if isinstance(value, (int, float)) and value >= 0:
        return int(value)
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z]*)\s*", str(value))
    if match is None or match[2].upper() not in _UNITS:
        raise ScheduleError(
            f"{value!r} is no amount of memory; write a number of bytes, or a number and one of "
            "B kB MB GB TB KiB MiB GiB TiB"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(n: int) -> str:
    """A short text for people."""
    size = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How the reverse sweep of a scan gets its states.

    Parameters
    ----------
    memory : int or str, optional
        Budget for snapshots [bytes], e.g. "200 MB". Default: half of the memory that the
        job may use now.
    disk : int or str, optional
        Budget on disk; all snapshots go to HDF5 files in `directory`.
    directory : str, optional
        Folder for snapshots, node-local by preference.
    schedule : {"auto", "store_all", "binomial"}
        `store_all` advances no step twice; `binomial` (Griewank & Walther 2000,
        doi:10.1145/347837.347846) needs the fewest advances for a number of snapshots.
        "auto" takes `store_all` where it fits the budget.
    snapshots : int, optional
        Number of snapshots, the initial state included, instead of a budget.

    Raises
    ------
    ScheduleError
        If the request contradicts itself.
    """

    memory: int | str | None = None
    disk: int | str | None = None
    directory: str | None = None
    schedule: Choice["auto", "store_all", "binomial"] = "auto"
    snapshots: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("auto", "store_all", "binomial"):
            raise ScheduleError(
                f"schedule={self.schedule!r} is not known; use 'auto', 'store_all' or 'binomial'"
            )
        if (self.disk is None) != (self.directory is None):
            raise ScheduleError("disk and directory belong together: give both or neither")
        if self.snapshots is not None and self.snapshots < 1:
            raise ScheduleError(
                f"snapshots={self.snapshots}: at least 1, the initial state, is needed"
            )
        for value in (self.memory, self.disk):
            if value is not None:
                parse_bytes(value)

    @property
    def uses_disk(self) -> bool:
        return self.directory is not None

    def budget(self) -> int:
        """Bytes for snapshots."""
        given = self.disk if self.uses_disk else self.memory
        return parse_bytes(given) if given is not None else available_bytes() // 2

    def choose(self, n_steps: int, state_bytes: int, contiguous_bytes: int) -> TableSchedule:
        """The schedule for a scan.

        Parameters
        ----------
        n_steps : int
        state_bytes : int
            One isolated snapshot.
        contiguous_bytes : int
            A whole trajectory, components that are handed on kept once.
        """
        all_bytes = n_steps * state_bytes if self.uses_disk else contiguous_bytes
        if self.schedule == "store_all":
            if self._has_budget() and all_bytes > self.budget():
                raise BudgetError(
                    f"store_all needs {format_bytes(all_bytes)} for {n_steps} steps, more than "
                    f"the budget of {format_bytes(self.budget())}; use schedule='auto'"
                )
            return StoreAll(n_steps)
        if self.snapshots is not None:
            return Binomial(n_steps, min(self.snapshots, max(1, n_steps)))
        if self.schedule == "auto" and all_bytes <= self.budget():
            return StoreAll(n_steps)
        n_snapshots = self.budget() // max(1, state_bytes)
        if n_snapshots < 1:
            raise BudgetError(
                f"the budget of {format_bytes(self.budget())} is smaller than one state of "
                f"{format_bytes(state_bytes)}; raise memory=, or give disk= and directory="
            )
        return Binomial(n_steps, min(n_snapshots, max(1, n_steps)))

    def _has_budget(self) -> bool:
        return (self.disk if self.uses_disk else self.memory) is not None


_default: ContextVar[Checkpointing] = ContextVar("default", default=Checkpointing())  # noqa: B039


@contextmanager
def default_checkpointing(request: Checkpointing) -> Iterator[None]:
    """Within the block, scans that ask for nothing are run by this request.

    So a budget reaches scans inside of a library that hands none on.

    Parameters
    ----------
    request : Checkpointing

    Examples
    --------
    >>> with default_checkpointing(Checkpointing(memory="2 GB")):
    ...     pass  # value_and_grad(...)
    """
    token = _default.set(request)
    try:
        yield
    finally:
        _default.reset(token)


def effective(request: Checkpointing | None) -> Checkpointing:
    """What a scan asks for, or the default."""
    return request if request is not None else _default.get()
