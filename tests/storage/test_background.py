"""The store with a worker thread: the same contract, and what threads can break."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from contract import LAYOUT, StoreContract, assert_holds, empty, state
from memory_store import MemoryStore

from backsweep.errors import SnapshotError
from backsweep.storage import AbstractStore, Layout
from backsweep.storage.background import BackgroundStore
from backsweep.storage.hdf5 import HDF5Store


class GatedStore(AbstractStore):
    """In memory; works only while its gate is open, and fails where it is told to."""

    def __init__(self, layout: Layout = LAYOUT) -> None:
        super().__init__(layout)
        self.store = MemoryStore(layout, 50)
        self.gate = threading.Event()
        self.gate.set()
        self.done: list[tuple[str, int]] = []
        self.failing: list[BaseException] = []

    def _act(self, what, key):
        self.gate.wait()
        self.done.append((what, key))
        if self.failing:
            raise self.failing.pop(0)

    def _write(self, key, arrays):
        self._act("write", key)
        self.store.put(key, arrays)

    def _read(self, key, out):
        self._act("read", key)
        self.store.get(key, out)

    def _remove(self, key):
        self._act("delete", key)
        self.store.delete(key)

    def _release(self):
        self.done.append(("close", 0))


@pytest.fixture
def inner():
    return GatedStore()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    if any(map(is_of_storage, threading.enumerate())):
        gc.collect()  # takes seconds in a process that has compiled much
    assert not any(map(is_of_storage, threading.enumerate()))


def is_of_storage(thread):
    return thread.name == "backsweep-storage"


class TestOverHDF5(StoreContract):
    @pytest.fixture(params=[1, 3])
    def store(self, tmp_path, request):
        with BackgroundStore(HDF5Store(tmp_path, LAYOUT), request.param) as store:
            yield store
        assert os.listdir(tmp_path) == []


class TestOverMemory(StoreContract):
    @pytest.fixture
    def store(self):
        with BackgroundStore(MemoryStore(LAYOUT, 10), 2) as store:
            yield store


def test_put_returns_before_the_disk_is_done(inner):
    with BackgroundStore(inner, 2) as store:
        inner.gate.clear()
        store.put(1, state(1))
        store.put(2, state(2))
        assert inner.done == [] and store.keys() == (1, 2)
        assert_holds(store, 2, state(2))
        assert_holds(store, 1, state(1))
        timer = threading.Timer(0.2, inner.gate.set)
        timer.start()
        store.put(3, state(3))
        assert 0.1 < store.waited_seconds < 5
        store.flush()
        assert inner.done == [("write", 1), ("write", 2), ("write", 3)]
        assert store.written_bytes == 3 * LAYOUT.nbytes and store.busy_seconds > 0.1
        timer.join()


def test_prefetched_snapshots_do_not_wait(inner):
    with BackgroundStore(inner, 2) as store:
        for key in range(4):
            store.put(key, state(key))
        store.flush()
        # The last two are still in the buffers.
        store.prefetch(1)
        store.prefetch(0)
        deadline = time.monotonic() + 10
        while store.read_bytes < 2 * LAYOUT.nbytes and time.monotonic() < deadline:
            time.sleep(0.001)
        inner.gate.clear()
        assert_holds(store, 1, state(1))
        assert_holds(store, 0, state(0))
        inner.gate.set()
        assert_holds(store, 3, state(3))
        assert store.read_bytes == 3 * LAYOUT.nbytes


def test_what_is_still_in_a_buffer_is_not_read(inner):
    with BackgroundStore(inner, 2) as store:
        for key in range(4):
            store.put(key, state(key))
        store.flush()
        for key in (3, 2, 3):
            assert_holds(store, key, state(key))
        assert store.read_bytes == 0
        # The latest step is needed first: it stays.
        assert_holds(store, 0, state(0))
        assert_holds(store, 3, state(3))
        assert store.read_bytes == LAYOUT.nbytes


def test_the_callers_own_buffers(inner):
    buffers = [empty() for _ in range(3)]
    with BackgroundStore(inner, buffers) as store:
        for key in range(6):
            number = store.stage()
            for place, value in zip(buffers[number], state(key), strict=True):
                place[...] = value
            store.put_staged(key, number)
        store.flush()
        lent = [store.lend(1), store.lend(2)]
        assert store.lend(3, waits=False) is None and store.lend(1, waits=False) == lent[0]
        inner.gate.clear()
        last = store.stage(waits=False)
        assert sorted((*lent, last)) == [0, 1, 2] and store.stage(waits=False) is None
        for place, value in zip(buffers[last], state(9), strict=True):
            place[...] = value
        store.put_staged(9, last)
        assert store.stage(waits=False) is None
        for key, number in zip((1, 2, 9), (*lent, last), strict=True):
            for found, value in zip(buffers[number], state(key), strict=True):
                np.testing.assert_array_equal(found, value)
        store.take_back(lent[0])
        assert store.stage(waits=False) == lent[0]
        inner.gate.set()
        with pytest.raises(SnapshotError, match="no snapshot of step 7"):
            store.lend(7)
        store.flush()
        assert store.keys() == (0, 1, 2, 3, 4, 5, 9)


def test_what_is_read_ahead_gives_way(inner):
    with BackgroundStore(inner, 1) as store:
        for key in range(3):
            store.put(key, state(key))
        for key in range(3):
            store.prefetch(key)
        store.put(3, state(3))
        store.prefetch(3)
        assert_holds(store, 1, state(1))
        assert_holds(store, 0, state(0))
        assert_holds(store, 3, state(3))
        with pytest.raises(SnapshotError, match="no snapshot of step 9"):
            store.prefetch(9)


def test_deleting_what_is_queued_cancels_it(inner):
    with BackgroundStore(inner, 3) as store:
        inner.gate.clear()
        for key in (1, 2, 3):
            store.put(key, state(key))
        store.delete(2)
        inner.gate.set()
        store.flush()
        assert ("write", 2) not in inner.done and store.keys() == (1, 3)


def test_a_snapshot_replaced_while_it_is_written(inner):
    with BackgroundStore(inner, 3) as store:
        inner.gate.clear()
        store.put(1, state(1))
        time.sleep(0.05)
        store.put(1, state(2))
        store.delete(1)
        store.put(1, state(3))
        assert_holds(store, 1, state(3))
        inner.gate.set()
        store.flush()
        assert_holds(store, 1, state(3))


@pytest.mark.parametrize("error", [SnapshotError("no room for it"), OSError("odd"), SystemExit(3)])
def test_a_write_that_fails_once(inner, error):
    with BackgroundStore(inner, 2) as store:
        store.put(0, state(0))
        store.flush()
        inner.failing = [error]
        store.put(1, state(1))
        store.put(2, state(2))
        store.flush()
        assert store.keys() == (0, 2) and 1 not in store and len(store) == 2
        assert list(store.failures) == [1]
        for _ in range(2):
            with pytest.raises(SnapshotError, match=str(error)):
                store.get(1, empty())
        store.put(1, state(4))
        assert store.failures == {}
        assert_holds(store, 1, state(4))
        assert_holds(store, 0, state(0))


def test_a_store_that_always_fails(inner):
    with BackgroundStore(inner, 2) as store:
        inner.failing = [SnapshotError(f"failure {i}") for i in range(20)]
        for key in range(20):
            store.put(key, state(key))
        store.flush()
        assert store.keys() == () and len(store.failures) == 20
        store.delete(7)
        assert len(store.failures) == 19


def test_a_read_that_fails_once(inner):
    with BackgroundStore(inner, 1) as store:
        store.put(1, state(1))
        store.put(2, state(2))
        store.flush()
        inner.failing = [SnapshotError("unreadable")]
        store.prefetch(1)
        with pytest.raises(SnapshotError, match="unreadable"):
            store.get(1, empty())
        assert_holds(store, 1, state(1))


def test_an_interrupted_put(inner):
    class Interrupting:
        """An array that is interrupted while it is copied."""

        shape, dtype = LAYOUT.shapes[0], LAYOUT.dtypes[0]

        def __array__(self, *_, **__):
            raise KeyboardInterrupt

    with BackgroundStore(inner, 1) as store:
        store.put(1, state(1))
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                store.put(2, [Interrupting(), *state(2)[1:]])
        assert store.keys() == (1,)
        store.put(2, state(2))
        assert_holds(store, 1, state(1))
        assert_holds(store, 2, state(2))


INTERRUPTED = """
import os, signal, sys, threading
# A shell lets what it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from contract import LAYOUT, assert_holds, state
from test_background import BackgroundStore, GatedStore

inner = GatedStore()
with BackgroundStore(inner, 1) as store:
    put, get = lambda: store.put(2, state(2)), lambda: assert_holds(store, 0, state(0))
    for act in (put, store.flush, get):
        inner.gate.set()
        store.put(0, state(0))
        store.flush()
        inner.gate.clear()
        store.put(1, state(1))
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            act()
            sys.exit("not interrupted")
        except KeyboardInterrupt:
            pass
    inner.gate.set()
    assert_holds(store, 1, state(1))
    assert_holds(store, 0, state(0))
"""


def test_interrupted_while_it_waits():
    folder = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", INTERRUPTED, folder], check=True, timeout=60)


def test_close_drops_what_is_queued_unless_it_is_kept(inner, tmp_path):
    store = BackgroundStore(inner, 3)
    inner.gate.clear()
    for key in (1, 2, 3):
        store.put(key, state(key))
    time.sleep(0.05)
    threading.Timer(0.1, inner.gate.set).start()
    store.close()
    assert inner.done == [("write", 1), ("close", 0)]
    with BackgroundStore(HDF5Store(tmp_path, LAYOUT, keep=True), 3) as store:
        for key in (1, 2, 3):
            store.put(key, state(key))
    with BackgroundStore(HDF5Store(tmp_path, LAYOUT, adopt=True), 3) as store:
        assert store.keys() == (1, 2, 3)
        assert_holds(store, 2, state(2))


def test_a_store_that_is_dropped_ends_its_thread(inner):
    store = BackgroundStore(inner, 1)
    store.put(1, state(1))
    del store
    gc.collect()
    assert inner.done[-1] == ("close", 0)


def test_nothing_grows(tmp_path):
    layout = Layout(("u",), ((100_000,),), ("f8",))
    u = np.ones(100_000)
    process = psutil.Process()

    def cycle():
        with BackgroundStore(HDF5Store(tmp_path, layout), 2) as store:
            for key in range(10):
                store.put(key, [u])
            for key in reversed(range(10)):
                store.prefetch(max(0, key - 1))
                store.get(key, [u])
                store.delete(key)

    for _ in range(3):
        cycle()
    # Python's threads: one that was joined takes the kernel a moment to remove.
    before = process.num_fds(), threading.active_count(), process.memory_info().rss
    for _ in range(10):
        cycle()
    after = process.num_fds(), threading.active_count(), process.memory_info().rss
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 4 * layout.nbytes


def test_wrong_numbers_of_buffers(inner):
    with pytest.raises(SnapshotError, match="needs a buffer, not 0"):
        BackgroundStore(inner, 0)
