"""Which parts of a gradient are done, and how far the one under way is: what makes it resumable.

A gradient is a sequence of events, the scans forward and backward that its program runs, in an
order that does not depend on data. An event that was finished before a kill returns its recorded
results; the one that was under way goes on at its durable point; what lies between events is
NumPy and is run again. (DESIGN 7.)
"""

from __future__ import annotations

import hashlib
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep import config
from backsweep.comm import AbstractComm, serial
from backsweep.errors import ScheduleError, SnapshotError
from backsweep.ir import Equation, Program, program_hash
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.runtime.together import Blocks, is_any
from backsweep.version import __version__

if TYPE_CHECKING:
    from backsweep.runtime.sharedfolder import SharedFolder
    from backsweep.storage.durable import DurableFolder

MAX_UNSAVED_BYTES = 1 << 26
"""Results of finished events that wait in memory for the next durable point."""

MIN_PART = 0.02
"""Durable points are at least this part of the time so far apart."""

Notes = dict[str, Any]
Capture = Callable[[], tuple[Notes, Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class Point:
    """Where an event goes on."""

    notes: Notes
    arrays: Mapping[str, np.ndarray]


_kept: list[list[Path]] = []


@contextmanager
def keeping_points() -> Iterator[list[Path]]:
    """Within the block the points of a finished gradient stay, for whoever keeps its result.

    Yields
    ------
    list of Path
        Folders with such points, to be removed when the result is durable.
    """
    _kept.append([])
    try:
        yield _kept[-1]
    finally:
        _kept.pop()


class Event:
    """A scan of a gradient that cannot be resumed; the base of those that can."""

    number = 0
    identity = ""
    is_durable = False

    def results(self) -> list[np.ndarray] | None:
        """What the event returned before the job was stopped."""
        return None

    def point(self) -> Point | None:
        """Where the event goes on."""
        return None

    def offer(self, capture: Capture) -> None:
        """Called between pieces of work: save a durable point if it is time to.

        Parameters
        ----------
        capture : callable
            Returns what is needed to go on.
        """
        stop.abandon_if_requested()

    def finish(self, results: Sequence[np.ndarray]) -> None:
        """The event is over."""


NOT_RESUMABLE = Event()


class AbstractJournal(ABC):
    """Hands out the events of a gradient in order."""

    @abstractmethod
    def event(self) -> Event:
        """The event that comes next."""


class _SharedEvent(Event):
    """Of ranks that run blocks: one does not stop alone."""

    def __init__(self, comm: AbstractComm) -> None:
        self.comm, self.may_abandon = comm, stop.may_abandon()

    def offer(self, capture: Capture) -> None:
        if self.may_abandon and stop.agreed(self.comm):
            raise stop.stopped("")


class NoJournal(AbstractJournal):
    """Of a gradient that is not resumable.

    Parameters
    ----------
    comm : AbstractComm, optional
        Of the ranks that run blocks of it.
    """

    def __init__(self, comm: AbstractComm | None = None) -> None:
        self._event = NOT_RESUMABLE if comm is None else _SharedEvent(comm)

    def event(self) -> Event:
        return self._event


class Journal(AbstractJournal):
    """Of a gradient that is resumable.

    Parameters
    ----------
    folder : DurableFolder or SharedFolder
    request : Checkpointing
    identity : str
        Hash of what is computed, and the rank.
    comm : AbstractComm
        Of the ranks that run blocks of it: they save and stop together. All methods of the
        journal and of its events are collective, but `results` and `point`.
    """

    def __init__(
        self,
        folder: DurableFolder | SharedFolder,
        request: Checkpointing,
        identity: str,
        comm: AbstractComm,
    ) -> None:
        self.folder, self.request, self.identity, self.comm = folder, request, identity, comm
        self._n_events = 0
        self._unsaved: dict[int, list[np.ndarray]] = {}
        self._begin = self._last = time.monotonic()
        point = folder.latest()
        done: Any = point.notes["done"] if point is not None else []
        self._done: set[int] = set(done)
        self._point = point

    def event(self) -> Event:
        self._n_events += 1
        return _JournalEvent(self, self._n_events)

    def results(self, number: int) -> list[np.ndarray] | None:
        """What a finished event returned."""
        if number not in self._done:
            return None
        arrays = self.folder.attached(f"event-{number}")
        return [arrays[f"result{k}"] for k in range(len(arrays))]

    def point(self, number: int) -> Point | None:
        """Where an event goes on; to be asked once."""
        point, self._point = self._point, None
        if point is None or point.notes["event"] != number:
            self._point = point
            return None
        return Point(point.notes, point.arrays())

    def offer(self, number: int, capture: Capture) -> None:
        """Save a durable point if it is time to, and stop if that was asked for."""
        if self._is_due():
            notes, arrays = capture()
            self._save(number, notes, arrays)

    def finish(self, number: int, results: Sequence[np.ndarray]) -> None:
        """Keep what an event returned."""
        self._unsaved[number] = list(results)
        n_bytes = sum(np.asarray(a).nbytes for own in self._unsaved.values() for a in own)
        if is_any(self.comm, n_bytes > MAX_UNSAVED_BYTES) or self._is_due():
            self._save(0, {}, {})

    def complete(self) -> None:
        """The gradient is there: nothing of the run stays in the folder."""
        folder = self.request.snapshot_folder
        # Of earlier runs of this rank with other budgets: this one's are gone.
        for path in Path(folder or ".").glob(f"*snapshot-{self.identity}-*"):
            with suppress(OSError):
                path.unlink()
        if _kept:
            _kept[-1].append(self.folder.directory)
        else:
            self.folder.clear()

    def _is_due(self) -> bool:
        now = time.monotonic()
        interval = max(self.request.interval, MIN_PART * (now - self._begin))
        is_time = self.comm.is_root and now - self._last >= interval
        return bool(stop.agreed(self.comm)) or is_any(self.comm, is_time)

    def _save(self, number: int, notes: Notes, arrays: Mapping[str, np.ndarray]) -> None:
        """Without room for it the run goes on, unless it is asked to stop."""
        try:
            self._write(number, notes, arrays)
        except SnapshotError as error:
            if stop.agreed(self.comm):
                raise
            if self.comm.is_root:
                warnings.warn(f"{error}; the run goes on without it", RuntimeWarning, stacklevel=2)
            return
        finally:
            # Of work: writing that takes longer than the interval must not follow on itself.
            self._last = time.monotonic()
        if stop.agreed(self.comm):
            raise stop.stopped(str(self.folder.directory))

    def _write(self, number: int, notes: Notes, arrays: Mapping[str, np.ndarray]) -> None:
        for event, results in self._unsaved.items():
            if event in self._done:
                continue
            self.folder.attach(
                f"event-{event}", {f"result{k}": np.asarray(a) for k, a in enumerate(results)}
            )
            self._done.add(event)
        self._unsaved.clear()
        about: dict[str, Any] = notes | {"event": number, "done": sorted(self._done)}
        self.folder.save(arrays, about)


class _JournalEvent(Event):
    is_durable = True

    def __init__(self, journal: Journal, number: int) -> None:
        self.journal, self.number, self.identity = journal, number, journal.identity

    def results(self) -> list[np.ndarray] | None:
        return self.journal.results(self.number)

    def point(self) -> Point | None:
        return self.journal.point(self.number)

    def offer(self, capture: Capture) -> None:
        self.journal.offer(self.number, capture)

    def finish(self, results: Sequence[np.ndarray]) -> None:
        self.journal.finish(self.number, results)


@contextmanager
def journal_of(
    requests: Sequence[Checkpointing],
    program: Program,
    arguments: Sequence[Any],
    blocks: Blocks | None = None,
) -> Iterator[Journal]:
    """The journal of a program's run, in the folder that its scans name.

    Parameters
    ----------
    requests : sequence of Checkpointing
    program : Program
    arguments : sequence of array_like
    blocks : Blocks, optional
        Of a program that is one rank's part: the ranks share the folder.

    Raises
    ------
    ScheduleError
        If they name several.
    ResumeError
        If the folder holds points of another computation, or another process works in it; with
        blocks `Agreed`.
    """
    request = requests[0]
    if len({(r.directory, r.interval, r.fresh) for r in requests}) > 1:
        raise ScheduleError(
            "the scans of one gradient ask for several folders or intervals of durable points: "
            "give all of them one Checkpointing"
        )
    assert request.directory is not None
    with stop.watching(), stop.finishing():
        if blocks is None:
            labels, comm = identity_of(program, arguments), serial()
        else:
            labels, comm = blocks.identity(), blocks.comm
        digest = hashlib.sha256(repr(sorted(labels.items())).encode()).hexdigest()[:16]
        # Not at the top: they load HDF5, which `import backsweep` does not.
        from backsweep.runtime.sharedfolder import SharedFolder
        from backsweep.storage.durable import DurableFolder

        folder: DurableFolder | SharedFolder
        if blocks is None:
            folder = DurableFolder(request.directory, labels, fresh=request.fresh)
        else:
            folder = SharedFolder(request.directory, labels, comm, fresh=request.fresh)
            digest += f"-rank-{comm.rank}"
        with folder:
            yield Journal(folder, request, digest, comm)


def identity_of(program: Program, arguments: Sequence[Any]) -> dict[str, str]:
    """What a computation is: program, inputs and versions, each as a short text.

    How it is run (budgets, folders, threads) is not part of it.
    """
    labels = {
        "backsweep": __version__,
        "numpy": np.__version__,
        "numba": version("numba"),
        "compiler": "off" if config.is_jit_disabled() else "on",
        "program": program_hash(_without_requests(program)),
    }
    for k, (var, value) in enumerate(zip(program.inputs, arguments, strict=True)):
        array = np.ascontiguousarray(value)
        digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
        digest.update(array.reshape(-1).view(np.uint8).data)
        labels[f"input {k} {var.name}".strip()] = digest.hexdigest()
    return labels


def _without_requests(program: Program) -> Program:
    return Program(
        program.inputs,
        tuple(_without_request(e) for e in program.equations),
        program.outputs,
        program.name,
    )


def _without_request(eqn: Equation) -> Equation:
    params: dict[str, Any] = {}
    for key, value in eqn.params.items():
        if isinstance(value, Program):
            params[key] = _without_requests(value)
        elif key == "programs":
            params[key] = tuple(_without_requests(p) for p in value)
        elif key != "checkpointing":
            params[key] = value
    return replace(eqn, params=params)
