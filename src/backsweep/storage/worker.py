"""The thread behind a `BackgroundStore`: what it shares with the caller, and its loop.

It knows the shared work and the inner store only, so that a store that nobody refers to can be
collected, which ends the thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from backsweep.errors import SnapshotError
from backsweep.storage.base import AbstractStore, Array


class Stage(Enum):
    TO_WRITE = auto()
    WRITING = auto()
    TO_READ = auto()
    READING = auto()
    READY = auto()
    FAILED = auto()
    TO_DELETE = auto()


IN_BUFFER = (Stage.TO_WRITE, Stage.WRITING, Stage.READY)
"""Stages in which a snapshot can be read where it lies."""


@dataclass(eq=False, slots=True)
class Entry:
    """A snapshot in a buffer, or on its way there; or the order to delete one."""

    key: int
    stage: Stage
    buffer: list[Array] | None = None
    error: SnapshotError | None = None
    #: Whether it is read soon: else its buffer may be had by whoever needs one.
    is_wanted: bool = False
    #: Whether the caller waits for it: then what was read ahead gives way.
    is_urgent: bool = False


_Buffers = list[list[Array]]


class Work:
    """What caller and worker share, all under `condition`."""

    def __init__(self, inner: AbstractStore, buffers: _Buffers) -> None:
        self.inner = inner
        self.buffers = buffers
        self.condition = threading.Condition()
        #: By key, the newest state of a snapshot that is not only in the inner store.
        self.entries: dict[int, Entry] = {}
        self.writes: deque[Entry] = deque()
        self.reads: deque[Entry] = deque()
        self.current: Entry | None = None
        #: Numbers of buffers that the caller writes to or reads from.
        self.lent: set[int] = set()
        self.failures: dict[int, SnapshotError] = {}
        self.is_stopping = False
        self.close_error: Exception | None = None
        self.busy_seconds = 0.0
        self.written_bytes = 0
        self.read_bytes = 0

    def free_buffer(self) -> list[Array] | None:
        """A buffer of no use to anybody, or the one whose snapshot is needed last."""
        holders = [*self.entries.values(), *self.writes]
        if self.current is not None:
            holders.append(self.current)
        taken = {id(entry.buffer) for entry in holders}
        for number, buffer in enumerate(self.buffers):
            if id(buffer) not in taken and number not in self.lent:
                return buffer
        # What is written or was read stays in its buffer as long as nobody else needs that.
        unwanted = [key for key in self.evictable() if not self.entries[key].is_wanted]
        # A reverse sweep comes to the latest step first.
        return self.entries.pop(min(unwanted)).buffer if unwanted else None

    def evictable(self) -> list[int]:
        """Keys of the snapshots in buffers that nobody uses now."""
        lent = {id(self.buffers[number]) for number in self.lent}
        return [
            key
            for key, entry in self.entries.items()
            if entry.stage is Stage.READY and id(entry.buffer) not in lent
        ]

    def next_entry(self) -> Entry | None:
        """What the worker does next; a read needs a buffer."""
        while self.reads and self.reads[0].is_urgent and self.free_buffer() is None:
            if self.writes or not self.evict():
                break
        if self.reads and (buffer := self.free_buffer()) is not None:
            entry = self.reads.popleft()
            entry.buffer, entry.stage = buffer, Stage.READING
            return entry
        if self.writes:
            entry = self.writes.popleft()
            if entry.stage is Stage.TO_WRITE:
                entry.stage = Stage.WRITING
            return entry
        return None

    def drop(self, key: int) -> None:
        """Forget the entry of a key; what is not begun is never done."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            for queue in (self.reads, self.writes):
                if entry in queue:
                    queue.remove(entry)

    def evict(self) -> bool:
        """Forget the snapshot that was read ahead last: it is needed last."""
        keys = self.evictable()
        if keys:
            del self.entries[keys[-1]]
        return bool(keys)

    def is_writing(self) -> bool:
        is_current = self.current is not None and self.current.stage in (
            Stage.WRITING,
            Stage.TO_DELETE,
        )
        return is_current or bool(self.writes)

    def settle(self, entry: Entry, error: SnapshotError | None) -> None:
        """Note how the work on an entry ended, unless the caller has forgotten it meanwhile."""
        self.current = None
        is_known = self.entries.get(entry.key) is entry
        if entry.stage is Stage.WRITING:
            self.written_bytes += 0 if error else self.inner.layout.nbytes
            if is_known and error is not None:
                self.failures[entry.key] = error
                del self.entries[entry.key]
            entry.stage = Stage.READY
        elif entry.stage is Stage.READING:
            self.read_bytes += 0 if error else self.inner.layout.nbytes
            entry.error = error
            entry.stage = Stage.READY if error is None else Stage.FAILED
            entry.buffer = entry.buffer if error is None else None


def _perform(inner: AbstractStore, entry: Entry) -> SnapshotError | None:
    """Let the inner store do the work; whatever goes wrong is a snapshot's error."""
    try:
        if entry.stage is Stage.TO_DELETE:
            if entry.key in inner:
                inner.delete(entry.key)
        elif entry.buffer is not None and entry.stage is Stage.WRITING:
            inner.put(entry.key, entry.buffer)
        elif entry.buffer is not None:
            inner.get(entry.key, entry.buffer)
    except SnapshotError as error:
        return error
    except BaseException as error:
        failure = SnapshotError(f"the snapshot of step {entry.key} failed in the worker: {error}")
        failure.__cause__ = error
        return failure
    return None


def run_worker(work: Work) -> None:
    """The worker: knows the shared work only, so that the store itself can be collected."""
    try:
        while True:
            with work.condition:
                while (entry := work.next_entry()) is None and not work.is_stopping:
                    work.condition.wait()
                if entry is None:
                    break
                work.current = entry
            start = time.perf_counter()
            error = _perform(work.inner, entry)
            with work.condition:
                work.busy_seconds += time.perf_counter() - start
                work.settle(entry, error)
                work.condition.notify_all()
            # Else the last snapshot's entry lives on while the worker waits.
            del entry, error
    finally:
        try:
            work.inner.close()
        except Exception as error:
            work.close_error = error


def stop_worker(work: Work, thread: threading.Thread) -> None:
    """End the worker; what is queued is written only if the inner store keeps its snapshots."""
    with work.condition:
        work.reads.clear()
        if not work.inner.keep:
            work.writes.clear()
        work.is_stopping = True
        work.condition.notify_all()
    # A finalizer may run in the worker itself.
    if thread is not threading.current_thread():
        thread.join()
