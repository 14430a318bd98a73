"""Runs the rows of a schedule on a machine: compiled sweeps and the interpreter alike.

The machine advances, reverses and keeps snapshots in its arena. What is outside is served here:
the initial state, snapshots on disk (written and read in the background, read ahead because the
rows are known), lost snapshots, and the pauses at which a run may be made durable or stopped.

Where the buffers of the disk are slots of the machine's arena, rows about the disk are rows about
such a slot: the machine stores to it, and the worker writes from there; the worker reads to it, and
the machine goes on from there. Nothing is copied for the disk's sake.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from backsweep.comm import AbstractComm
from backsweep.errors import SnapshotError
from backsweep.runtime.report import ScanReport
from backsweep.runtime.rows import RowSource, is_outside
from backsweep.runtime.together import shared_failure
from backsweep.schedule import DISCARD, LOAD, STORE
from backsweep.storage import AbstractStore, BackgroundStore

Pause = Callable[[], None]
"""Called between pieces of work of at most about half a second."""


class Machine(Protocol):
    """What runs steps."""

    def run_rows(self, rows: np.ndarray, pause: Pause) -> None:
        """Execute rows whose snapshots are in the arena."""

    def state(self) -> list[np.ndarray]:
        """The state that the last action left; to be read at once."""

    def begin_load(self, step: int) -> list[np.ndarray]:
        """Arrays to be filled with the state of a step, which is the current one then."""


class BufferSlots(Protocol):
    """An arena whose slots from `n_slots` on are the buffers of a `BackgroundStore`."""

    n_slots: int

    def is_used(self, number: int) -> bool:
        """Whether the current state, or the one before it, lies in a buffer."""


READ_AHEAD = 2
"""Snapshots that are loaded next and read meanwhile."""

LEAST_SECONDS = 3e-3
"""Of a call of the machine, if it can be: a call takes up to 1e-4."""


class _Batch:
    """Rows of a block that the machine gets piece by piece, without what it does not know."""

    def __init__(self, rows: np.ndarray) -> None:
        is_left_out = is_outside(rows)
        self.outside: list[int] = np.flatnonzero(is_left_out).tolist()
        self.loads = [int(rows[at, 1]) for at in self.outside if rows[at, 0] == LOAD]
        self.rows, self.is_known, self.begin = rows.copy(), ~is_left_out, 0
        self.steps: list[int] = np.cumsum([0, *(rows[:, 2] - rows[:, 1])]).tolist()

    def n_steps(self, stop: int) -> int:
        """Steps that are left before a row."""
        return self.steps[stop] - self.steps[self.begin]

    def place(self, at: int, slot: int) -> None:
        """Let the machine execute a row, with a slot of its own."""
        self.rows[at, 3], self.is_known[at] = slot, True

    def take(self, stop: int) -> np.ndarray:
        """Rows up to one, which are over then."""
        part = slice(self.begin, stop)
        self.begin = stop
        return self.rows[part][self.is_known[part]]


@dataclass
class Driver:
    """One scan's rows, and its snapshots outside of the arena.

    Attributes
    ----------
    rows : RowSource
    initial : sequence of ndarray
        The state of step 0; read only.
    store : AbstractStore, optional
        Snapshots on disk.
    arena : BufferSlots, optional
        Whose buffers are those of the store, which is a `BackgroundStore` then.
    comm : AbstractComm, optional
        Of ranks that run blocks by the same rows: what one has lost, all have. Without an arena
        then: which buffer is free when would differ between ranks.
    """

    rows: RowSource
    initial: Sequence[np.ndarray]
    store: AbstractStore | None
    report: ScanReport
    arena: BufferSlots | None = None
    comm: AbstractComm | None = None
    lent: set[int] = field(default_factory=set)
    """Numbers of the buffers that the machine loads from."""
    staged: dict[int, int] = field(default_factory=dict)
    """Steps and numbers of the buffers that the rows to be executed next store to."""
    pace: float = 1.0
    """Seconds per step, of late."""
    loads: deque[int] = field(default_factory=deque)
    """Steps of the loads of a block that are still to come."""

    def run_phase(self, machine: Machine, pause: Pause) -> None:
        """Run the phase that comes next: up to the last state, or the reverse sweep."""
        while not self._attempt(machine, pause):
            pass

    def _attempt(self, machine: Machine, pause: Pause) -> bool:
        for rows in self.rows.blocks():
            batch = _Batch(rows)
            self.loads = deque(batch.loads)
            for at in batch.outside:
                kind, step = int(rows[at, 0]), int(rows[at, 1])
                if kind == DISCARD:
                    self._discard(step)
                    continue
                if kind == STORE and not self._is_new(step):
                    continue
                is_short = batch.n_steps(at) * self.pace < LEAST_SECONDS
                # A store may end a long run; a load would have to wait for it.
                if (is_short or kind == STORE) and self._use_buffer(batch, at, waits=False):
                    if not is_short:
                        self._run(machine, batch, at + 1, pause)
                    continue
                self._run(machine, batch, at, pause)
                try:
                    with shared_failure(self.comm):
                        if not self._use_buffer(batch, at, waits=True):
                            self._copy(machine, kind, step)
                except SnapshotError as error:
                    self._lose(step, error)
                    self.rows.lose(at, error)
                    return False
            self._run(machine, batch, len(rows), pause)
        return True

    def _run(self, machine: Machine, batch: _Batch, stop: int, pause: Pause) -> None:
        """Let the machine execute what is left of a batch before a row."""
        n_steps, rows = batch.n_steps(stop), batch.take(stop)
        if not len(rows):
            return
        self._read_ahead()
        begin = time.perf_counter()
        machine.run_rows(rows, pause)
        if n_steps:
            self.pace = (time.perf_counter() - begin) / n_steps
        if self.arena is not None:
            for step, number in self.staged.items():
                self._background.put_staged(step, number)
            self.staged.clear()
            self._take_back([k for k in self.lent if not self.arena.is_used(k)])

    def _use_buffer(self, batch: _Batch, at: int, *, waits: bool) -> bool:
        """Have the machine store to a buffer or load from one; False if there is none."""
        kind, step = batch.rows[at, :2].tolist()
        if self.arena is None or step == 0:
            return False
        number = self._stage(step, waits) if kind == STORE else self._borrow(step, waits)
        if number is not None:
            batch.place(at, self.arena.n_slots + number)
        return number is not None

    def _stage(self, step: int, waits: bool) -> int | None:
        number = self._background.stage(waits=waits)
        if number is not None:
            self.staged[step] = number
            self.report.n_disk_writes += 1
        return number

    def _borrow(self, step: int, waits: bool) -> int | None:
        store = self._background
        if waits:
            # The rows before are executed, and nobody goes on from their state.
            self._take_back(list(self.lent))
        number = store.lend(step, waits=waits)
        if number is not None:
            self.lent.add(number)
            self.loads.popleft()
            self.report.n_disk_reads += 1
        return number

    def _take_back(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._background.take_back(number)
            self.lent.discard(number)

    def _copy(self, machine: Machine, kind: int, step: int) -> None:
        """Execute a row about the initial state, or where the machine has no buffers."""
        if kind == STORE:
            assert self.store is not None
            if step not in self.store:
                self.store.put(step, machine.state())
                self.report.n_disk_writes += 1
            return
        self.loads.popleft()
        if step == 0:
            for place, value in zip(machine.begin_load(0), self.initial, strict=True):
                place[...] = value
            return
        assert self.store is not None
        self.store.get(step, machine.begin_load(step))
        self.report.n_disk_reads += 1

    def _is_new(self, step: int) -> bool:
        """Whether a state is to be stored: not the initial one, nor one kept by an earlier job."""
        if self.comm is not None:  # the ranks find out together
            return step > 0
        return step > 0 and self.store is not None and step not in self.store

    def _discard(self, step: int) -> None:
        if step in self.staged:
            self.lent.add(self.staged.pop(step))
        if self.store is not None and step in self.store:
            self.store.delete(step)

    def _read_ahead(self) -> None:
        """Start reading the snapshots that are loaded next, while steps run."""
        if self.store is None:
            return
        for step in dict.fromkeys(islice(self.loads, 2 * READ_AHEAD)):
            if step not in self.store:
                break
            with suppress(SnapshotError):  # the load itself will tell
                self.store.prefetch(step)

    @property
    def _background(self) -> BackgroundStore:
        assert isinstance(self.store, BackgroundStore)
        return self.store

    def _lose(self, step: int, error: SnapshotError) -> None:
        """Forget a snapshot: one of that step may be stored again."""
        if self.store is not None and step in self.store:
            with suppress(SnapshotError):
                self.store.delete(step)
        self.report.n_lost += 1
        if self.report.n_lost == 1 and (self.comm is None or self.comm.is_root):
            warnings.warn(
                f"{error}; the run goes on and advances again from an older state",
                RuntimeWarning,
                stacklevel=2,
            )
