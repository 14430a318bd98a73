"""A store whose disk works while the caller computes.

One worker thread owns the inner store. `put` copies to one of a few buffers and returns;
`prefetch` has a snapshot read to one before it is asked for. A snapshot that is still in a buffer
is served from there, whether it is on its way to disk or back. Reads go before writes, because
somebody waits for them; what is written or deleted is so in order.

Copies cost more time than anything else here. So a caller may own the buffers, fill them himself
(`stage`, `put_staged`) and use what is in them where it lies (`lend`, `take_back`).

A buffer is free if nothing has it: nothing is counted that an interruption could leave wrong.
A failing write cannot be told to the caller who put it: the key drops out of `keys`, and
`failures` remembers why.

Known to be suboptimal: a read that nobody prefetched goes through a buffer too.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.storage.base import AbstractStore, Array
from backsweep.storage.worker import IN_BUFFER, Entry, Stage, Work, run_worker, stop_worker


@final
class BackgroundStore(AbstractStore):
    """Another store, worked by a thread of its own.

    Parameters
    ----------
    inner : AbstractStore
        Owned from now on, and closed with this one; its snapshots are held from the start.
    buffers : int or sequence of lists of ndarray
        Places for snapshots on their way to or from disk: how many, at least 1, or the caller's.

    Attributes
    ----------
    failures : dict of int to SnapshotError
        Writes that failed. `get` of such a key raises that error, `put` and `delete` forget it.
    waited_seconds : float
        How long the caller has waited for a buffer or for a read.
    busy_seconds : float
        How long the worker has read, written and deleted.
    written_bytes, read_bytes : int

    Raises
    ------
    SnapshotError
        If there is no buffer, or memory or a thread cannot be had.

    Notes
    -----
    Takes ``layout.nbytes`` bytes for each own buffer. `close` waits for the operation under way,
    and for queued writes if `inner.keep` is set. A store that is no longer referenced, or an
    interpreter that ends, closes it too.
    """

    def __init__(self, inner: AbstractStore, buffers: int | Sequence[list[Array]]) -> None:
        layout = inner.layout
        super().__init__(layout)
        n_buffers = buffers if isinstance(buffers, int) else len(buffers)
        if n_buffers < 1:
            raise SnapshotError(f"a background store needs a buffer, not {n_buffers}")
        self.keep = inner.keep
        self.waited_seconds = 0.0
        self._steps.update(inner.keys())
        try:
            if isinstance(buffers, int):
                kinds = list(zip(layout.shapes, layout.dtypes, strict=True))
                buffers = [[np.empty(s, d) for s, d in kinds] for _ in range(buffers)]
            self._work = Work(inner, list(buffers))
            # An interpreter that ends does not wait for the thread, it stops it first.
            thread = threading.Thread(
                target=run_worker, args=(self._work,), name="backsweep-storage", daemon=True
            )
            thread.start()
        except (MemoryError, ValueError, RuntimeError) as error:
            raise SnapshotError(
                f"{n_buffers} buffers of {layout.nbytes} bytes and a thread to write them cannot "
                f"be had: {error}"
            ) from error
        self._stop = weakref.finalize(self, stop_worker, self._work, thread)

    @property
    def failures(self) -> dict[int, SnapshotError]:
        with self._work.condition:
            return dict(self._work.failures)

    @property
    def busy_seconds(self) -> float:
        return self._work.busy_seconds

    @property
    def written_bytes(self) -> int:
        return self._work.written_bytes

    @property
    def read_bytes(self) -> int:
        return self._work.read_bytes

    def prefetch(self, key: int) -> None:
        """Read the snapshot of step `key` to a buffer as soon as one is free; does not wait.

        Raises
        ------
        SnapshotError
            If there is no such snapshot.
        """
        self._check_held(key)
        work = self._work
        with work.condition:
            entry = work.entries.get(key)
            if entry is None:
                self._queue_read(key, is_urgent=False)
            else:
                entry.is_wanted = True

    def delete(self, key: int) -> None:
        """Forget the snapshot of step `key`, or that its write failed.

        Raises
        ------
        SnapshotError
            If there is no such snapshot.
        """
        self._check_open()
        with self._work.condition:
            has_failed = self._work.failures.pop(key, None) is not None
            if has_failed:
                # An earlier snapshot of this step may be there.
                self._steps.discard(key)
                self._queue_delete(key)
        if not has_failed:
            super().delete(key)

    def flush(self) -> None:
        """Wait until all that was put is written, or has failed."""
        self._check_open()
        with self._work.condition:
            self._wait(lambda: not self._work.is_writing())

    def stage(self, *, waits: bool = True) -> int | None:
        """The number of a free buffer, for the caller to fill and `put_staged`.

        If there is none this waits, and what was read ahead gives way; or returns None.
        """
        self._check_open()
        work = self._work
        with work.condition:
            while (buffer := work.free_buffer()) is None:
                if not waits:
                    return None
                if not work.is_writing() and work.evict():
                    continue
                self._wait(lambda: work.free_buffer() is not None or self._can_evict())
            return self._lent(buffer)

    def put_staged(self, key: int, number: int) -> None:
        """As `put`, of what the caller has written to the buffer that `stage` gave."""
        work = self._work
        entry = Entry(key, Stage.TO_WRITE, work.buffers[number])
        with work.condition:
            work.drop(key)
            work.failures.pop(key, None)
            work.writes.append(entry)
            work.entries[key] = entry
            work.lent.discard(number)
            work.condition.notify_all()
        self._steps.add(key)

    def lend(self, key: int, *, waits: bool = True) -> int | None:
        """The number of the buffer that holds a snapshot, to be read until `take_back`.

        Where it must be read from the inner store this waits, and raises as `get`; or returns None.
        """
        if waits:
            self._check_held(key)
        work = self._work
        with work.condition:
            entry = work.entries.get(key)
            if not waits and (entry is None or entry.stage not in IN_BUFFER):
                return None
            if entry is None or entry.stage is Stage.TO_READ:
                work.drop(key)
                entry = self._queue_read(key, is_urgent=True)
            found = entry
            self._wait(lambda: found.stage not in (Stage.TO_READ, Stage.READING))
            if found.stage is Stage.FAILED and found.error is not None:
                work.drop(key)
                raise SnapshotError(str(found.error)) from found.error
            if found.buffer is None:
                raise SnapshotError(f"the snapshot of step {key} was not read")
            # The worker may read what is being written, but nobody writes to it.
            found.is_wanted = False
            return self._lent(found.buffer)

    def take_back(self, number: int) -> None:
        """The caller does not use a buffer any more."""
        with self._work.condition:
            self._work.lent.discard(number)
            self._work.condition.notify_all()

    def _write(self, key: int, arrays: Sequence[Array]) -> None:
        # Only an interrupted call has left one.
        self._work.lent.clear()
        number = self.stage()
        assert number is not None
        try:
            for place, array in zip(self._work.buffers[number], arrays, strict=True):
                place[...] = array
        except BaseException:
            self.take_back(number)
            raise
        self.put_staged(key, number)

    def _read(self, key: int, out: Sequence[Array]) -> None:
        self._work.lent.clear()
        number = self.lend(key)
        assert number is not None
        try:
            for place, array in zip(self._work.buffers[number], out, strict=True):
                array[...] = place
        finally:
            self.take_back(number)

    def _remove(self, key: int) -> None:
        with self._work.condition:
            self._queue_delete(key)

    def _release(self) -> None:
        self._stop()
        self._work.entries.clear()
        self._work.buffers.clear()
        if self._work.close_error is not None:
            raise self._work.close_error

    def _held(self) -> set[int]:
        with self._work.condition:
            self._steps.difference_update(self._work.failures)
        return self._steps

    def _check_held(self, key: int) -> None:
        self._check_open()
        failure = self._work.failures.get(key)
        if failure is not None:
            raise SnapshotError(str(failure)) from failure
        super()._check_held(key)

    def _queue_delete(self, key: int) -> None:
        self._work.drop(key)
        self._work.writes.append(Entry(key, Stage.TO_DELETE))
        self._work.condition.notify_all()

    def _queue_read(self, key: int, is_urgent: bool) -> Entry:
        work = self._work
        entry = Entry(key, Stage.TO_READ, is_wanted=True, is_urgent=is_urgent)
        if is_urgent:
            work.reads.appendleft(entry)
        else:
            work.reads.append(entry)
        work.entries[key] = entry
        work.condition.notify_all()
        return entry

    def _lent(self, buffer: list[Array]) -> int:
        number = next(k for k, own in enumerate(self._work.buffers) if own is buffer)
        self._work.lent.add(number)
        return number

    def _can_evict(self) -> bool:
        return not self._work.is_writing() and bool(self._work.evictable())

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Wait under the condition for the worker; the caller's time is counted."""
        start = time.perf_counter()
        try:
            while not is_done():
                self._work.condition.wait()
        finally:
            self.waited_seconds += time.perf_counter() - start
