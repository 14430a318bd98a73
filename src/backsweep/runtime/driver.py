"""Runs the rows of a schedule on a machine: compiled sweeps and the interpreter alike.

The machine advances, reverses and keeps snapshots in its arena. What is outside is served here:
the initial state, snapshots on disk (written and read in the background, read ahead because the
rows are known), lost snapshots, and the pauses at which a run may be made durable or stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backsweep.comm import AbstractComm
from backsweep.errors import SnapshotError
from backsweep.runtime.report import ScanReport
from backsweep.runtime.rows import RowSource, is_outside
from backsweep.runtime.together import shared_failure
from backsweep.schedule import LOAD, STORE
from backsweep.storage import AbstractStore

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
    comm : AbstractComm, optional
        Of ranks that run blocks by the same rows: what one has lost, all have.
    """

    rows: RowSource
    initial: Sequence[np.ndarray]
    store: AbstractStore | None
    report: ScanReport
    comm: AbstractComm | None = None

    def run_phase(self, machine: Machine, pause: Pause) -> None:
        """Run the phase that comes next: up to the last state, or the reverse sweep."""
        while not self._attempt(machine, pause):
            pass

    def _attempt(self, machine: Machine, pause: Pause) -> bool:
        for block in self.rows.blocks():
            outside = np.flatnonzero(is_outside(block))
            begin = 0
            for at in (*outside.tolist(), len(block)):
                if at > begin:
                    self._read_ahead(block, outside, at)
                    machine.run_rows(block[begin:at], pause)
                begin = at + 1
                if at == len(block):
                    break
                try:
                    with shared_failure(self.comm):
                        self._execute(machine, int(block[at, 0]), int(block[at, 1]))
                except SnapshotError as error:
                    self._lose(int(block[at, 1]), error)
                    self.rows.lose(at, error)
                    return False
        return True

    def _execute(self, machine: Machine, kind: int, step: int) -> None:
        store = self.store
        if step == 0:
            if kind == LOAD:
                for place, value in zip(machine.begin_load(0), self.initial, strict=True):
                    place[...] = value
            return
        assert store is not None
        if kind == STORE:
            if step not in store:  # kept from before the job was stopped
                store.put(step, machine.state())
                self.report.n_disk_writes += 1
        elif kind == LOAD:
            store.get(step, machine.begin_load(step))
            self.report.n_disk_reads += 1
        elif step in store:
            store.delete(step)

    def _read_ahead(self, block: np.ndarray, outside: np.ndarray, at: int) -> None:
        """Start reading the snapshot that is loaded next, while steps run."""
        if self.store is None:
            return
        later = outside[outside >= at]
        loads = later[(block[later, 0] == LOAD) & (block[later, 1] > 0)]
        if len(loads) and int(block[loads[0], 1]) in self.store:
            with suppress(SnapshotError):  # the load itself will tell
                self.store.prefetch(int(block[loads[0], 1]))

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
