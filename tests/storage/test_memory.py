"""The store in memory."""

from __future__ import annotations

import pytest
from contract import LAYOUT, StoreContract, assert_holds, state
from memory_store import MemoryStore, slot_nbytes

from backsweep.errors import SnapshotError
from backsweep.storage import Layout


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        with MemoryStore(LAYOUT, n_slots=4) as store:
            yield store


def test_a_full_store():
    with MemoryStore(LAYOUT, n_slots=2) as store:
        store.put(1, state(1))
        store.put(5, state(5))
        with pytest.raises(SnapshotError, match=r"step 8: all 2 are taken, by the steps \(1, 5\)"):
            store.put(8, state(8))
        store.put(5, state(6))
        store.delete(1)
        store.put(8, state(8))
        assert_holds(store, 5, state(6))
        assert_holds(store, 8, state(8))


def test_fields_are_aligned_and_inside_the_arena():
    with MemoryStore(LAYOUT, n_slots=3) as store:
        for slot in range(3):
            for field in store._fields(slot):
                assert field.ctypes.data % 64 == 0 or field.size == 0
    assert slot_nbytes(LAYOUT) == sum(-(-n // 64) * 64 for n in LAYOUT.field_nbytes)


def test_arenas_that_cannot_be_had():
    with pytest.raises(SnapshotError, match="0 slots"):
        MemoryStore(LAYOUT, 0)
    with pytest.raises(SnapshotError, match="do not fit into memory"):
        MemoryStore(Layout(("u",), ((2**40,),), ("f8",)), 2**10)


def test_a_state_without_fields():
    with MemoryStore(Layout((), (), ()), n_slots=1) as store:
        store.put(0, [])
        store.get(0, [])
