"""What the user asks of checkpointing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from backsweep.errors import ScheduleError, did_you_mean
from backsweep.runtime.memory import available_bytes

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


SCHEDULES = ("auto", "store_all", "binomial", "multistage", "mixed", "online")


@dataclass(frozen=True)
class Labels:
    """What snapshot files say about themselves to their readers.

    Parameters
    ----------
    dt : float, optional
        Length of a step [s]; files then carry the time of their state.
    units : mapping of str to str
        By the carry's names in the step, e.g. ``{"u": "Pa"}``.
    dimensions : mapping of str to sequence of str
        Names of a component's axes, e.g. ``{"u": ("x", "z")}``.
    """

    dt: float | None = None
    units: Any = ()
    dimensions: Any = ()

    def __post_init__(self) -> None:
        units = tuple(sorted(dict(self.units).items()))
        axes = tuple(sorted((k, tuple(v)) for k, v in dict(self.dimensions).items()))
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "dimensions", axes)


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How the reverse sweep of a scan gets its states, and whether it survives a kill.

    Parameters
    ----------
    memory : int or str, optional
        Budget for snapshots and the buffers of disk traffic [bytes], e.g. "200 MB". Default:
        half of the memory that the job may use now. Scans of one gradient with equal requests
        share it.
    disk : int or str, optional
        Budget for snapshots in HDF5 files [bytes], used where the memory is too small.
    directory : str, optional
        Folder for snapshots and for what `resume` needs. Made where it is missing.
    scratch : str, optional
        Another folder for the snapshots: a disk of the node, while `directory` is shared.
    schedule : str or object
        "auto" takes `store_all` where it fits the memory, else `binomial`, with a disk
        `multistage`. "store_all" advances no step twice; "binomial" (Griewank & Walther 2000,
        doi:10.1145/347837.347846) needs the fewest advances for a number of snapshots;
        "multistage" (Stumm & Walther 2009, doi:10.1137/080718036) is the same with the snapshots
        that are used most in memory; "mixed" (Maddison 2024, doi:10.1016/j.jocs.2024.102405)
        keeps residuals as well; "online" does not look at the number of steps. Or an object of
        the package ``checkpoint_schedules`` for as many steps as the scan has.
    snapshots : int, optional
        Number of snapshots, the initial state included, instead of a budget in memory.
    resume : bool
        Make the gradient durable in `directory` while it runs; the same call after a kill goes
        on there and returns the same bits. For `value_and_grad` and `grad`.
    interval : float
        Seconds between two durable points; at least 2 % of the run.
    fresh : bool
        Start over, whatever another run has left in `directory`.
    labels : Labels, optional
        Units, dimension names and time step, written to snapshot files for their readers.

    Raises
    ------
    ScheduleError
        If the request contradicts itself.
    """

    memory: int | str | None = None
    disk: int | str | None = None
    directory: str | None = None
    scratch: str | None = None
    schedule: Any = "auto"
    snapshots: int | None = None
    resume: bool = False
    interval: float = 60.0
    fresh: bool = False
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ScheduleError(
                f"schedule={self.schedule!r} is not known; {did_you_mean(self.schedule, SCHEDULES)}"
            )
        if not isinstance(self.schedule, str) and not hasattr(self.schedule, "max_n"):
            raise ScheduleError(
                f"schedule={self.schedule!r} is no schedule: give one of {', '.join(SCHEDULES)} "
                "or an object of the package checkpoint_schedules"
            )
        if self.disk is not None and self.directory is None and self.scratch is None:
            raise ScheduleError("disk= is a budget for files: give directory= (or scratch=) too")
        if self.disk is None and self.scratch is not None:
            raise ScheduleError("scratch= is a folder for snapshots: give a budget disk= too")
        if self.resume and self.directory is None:
            raise ScheduleError("resume=True needs directory=, where the durable points go")
        if self.directory is not None and self.disk is None and not self.resume:
            raise ScheduleError(
                "directory= alone does nothing: give a budget disk= for snapshots, or resume=True"
            )
        if self.schedule in ("mixed", "online") and self.disk is not None:
            raise ScheduleError(
                f"schedule={self.schedule!r} keeps its snapshots in memory: leave disk= out"
            )
        if self.schedule == "multistage" and self.disk is None:
            raise ScheduleError("schedule='multistage' needs disk= and directory=")
        if self.snapshots is not None and self.snapshots < 1:
            raise ScheduleError(
                f"snapshots={self.snapshots}: at least 1, the initial state, is needed"
            )
        if not self.interval > 0:
            raise ScheduleError(f"interval={self.interval}: seconds, more than 0, are needed")
        for value in (self.memory, self.disk):
            if value is not None:
                parse_bytes(value)

    @property
    def uses_disk(self) -> bool:
        return self.disk is not None

    @property
    def snapshot_folder(self) -> str | None:
        """Where snapshots on disk go."""
        return self.scratch or self.directory

    def memory_budget(self) -> int:
        """Bytes in memory, for all scans of this request together."""
        return parse_bytes(self.memory) if self.memory is not None else available_bytes() // 2

    def disk_budget(self) -> int:
        """Bytes on disk, for all scans of this request together."""
        return parse_bytes(self.disk) if self.disk is not None else 0


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
