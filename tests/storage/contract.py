"""What every snapshot store must do; each store's tests inherit `StoreContract`."""

from __future__ import annotations

import numpy as np
import pytest

from backsweep.errors import ShapeError, SnapshotError
from backsweep.storage import AbstractStore, Layout

LAYOUT = Layout(
    names=("u", "v", "time", "empty", "mask", "psi", "count"),
    shapes=((3, 4), (5,), (), (0, 2), (3,), (2, 2), (2,)),
    dtypes=("float32", "float64", "float64", "float32", "bool", "complex64", "int64"),
    units=("Pa", "µm/s", "s", "", "", "", ""),
    program="0123456789abcdef",
)


def state(seed: int, layout: Layout = LAYOUT) -> list[np.ndarray]:
    """A state with the given layout, different for each seed."""
    random = np.random.default_rng(seed)
    return [
        np.asarray(random.integers(0, 100, shape) + seed).astype(dtype)
        for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True)
    ]


def empty(layout: Layout = LAYOUT) -> list[np.ndarray]:
    return [np.zeros(s, d) for s, d in zip(layout.shapes, layout.dtypes, strict=True)]


def assert_holds(store: AbstractStore, key: int, expected: list[np.ndarray]) -> None:
    out = empty()
    store.get(key, out)
    for array, wanted in zip(out, expected, strict=True):
        np.testing.assert_array_equal(array, wanted, strict=True)


class StoreContract:
    """Inherit, and give a fixture `store` of at least 4 snapshots with `LAYOUT`."""

    def test_gives_back_what_was_put(self, store):
        for key in (0, 7, 10**9):
            store.put(key, state(key))
        for key in (7, 10**9, 0, 7):
            assert_holds(store, key, state(key))

    def test_special_values_keep_their_bits(self, store):
        arrays = empty()
        arrays[1][:] = [np.nan, -0.0, np.inf, 5e-324, 1.0]
        store.put(1, arrays)
        out = empty()
        store.get(1, out)
        assert out[1].tobytes() == arrays[1].tobytes()

    def test_copies(self, store):
        arrays = state(1)
        store.put(1, arrays)
        arrays[0][:] = -1
        assert_holds(store, 1, state(1))

    def test_fills_the_callers_buffers(self, store):
        store.put(1, state(1))
        out = empty()
        before = [array.ctypes.data for array in out]
        store.get(1, out)
        assert [array.ctypes.data for array in out] == before

    def test_strided_arrays(self, store):
        arrays, out = state(1), empty()
        arrays[0] = np.asfortranarray(arrays[0])
        arrays[1] = np.repeat(arrays[1], 2)[::2]
        store.put(1, arrays)
        out[0] = np.zeros((4, 3), np.float32).T
        wide = np.zeros(10)
        out[1] = wide[::2]
        store.get(1, out)
        for array, wanted in zip(out, state(1), strict=True):
            np.testing.assert_array_equal(array, wanted)
        assert not wide[1::2].any()

    def test_put_replaces(self, store):
        store.put(1, state(1))
        store.put(1, state(2))
        assert store.keys() == (1,)
        assert_holds(store, 1, state(2))

    def test_keys_and_bytes(self, store):
        assert store.keys() == () and store.nbytes == 0 and len(store) == 0
        store.put(5, state(5))
        store.put(3, state(3))
        assert store.keys() == (3, 5)
        assert 5 in store and 4 not in store and len(store) == 2
        assert store.nbytes == 2 * LAYOUT.nbytes

    def test_delete(self, store):
        for key in range(4):
            store.put(key, state(key))
        store.delete(2)
        assert store.keys() == (0, 1, 3)
        store.put(9, state(9))
        for key in (0, 1, 3, 9):
            assert_holds(store, key, state(key))

    def test_many_generations(self, store):
        for key in range(40):
            store.put(key, state(key))
            if key >= 3:
                assert_holds(store, key - 3, state(key - 3))
                store.delete(key - 3)
        assert store.keys() == (37, 38, 39)

    def test_missing_snapshots(self, store):
        store.put(1, state(1))
        with pytest.raises(SnapshotError, match=r"no snapshot of step 2 is held; held are \(1,\)"):
            store.get(2, empty())
        with pytest.raises(SnapshotError, match="no snapshot of step 2"):
            store.delete(2)
        with pytest.raises(SnapshotError, match="-1 is no step number"):
            store.put(-1, state(1))

    def test_arrays_that_do_not_fit(self, store):
        store.put(1, state(1))
        wrong_shape, wrong_dtype, read_only = empty(), empty(), empty()
        wrong_shape[0] = np.zeros((4, 3), np.float32)
        wrong_dtype[1] = np.zeros(5, np.float32)
        read_only[0].flags.writeable = False
        for arrays, message in [
            (wrong_shape, r"field 'u' .*float32 of shape \(3, 4\).*\(4, 3\)"),
            (wrong_dtype, "field 'v' .*float64.*float32"),
            (empty()[:-1], "6 arrays for the 7 fields"),
        ]:
            with pytest.raises(ShapeError, match=message):
                store.put(2, arrays)
            with pytest.raises(ShapeError, match=message):
                store.get(1, arrays)
        with pytest.raises(ShapeError, match="read-only"):
            store.get(1, read_only)
        assert store.keys() == (1,)

    def test_close(self, store):
        store.put(1, state(1))
        store.close()
        store.close()
        assert store.keys() == () and store.nbytes == 0
        with pytest.raises(SnapshotError, match="is closed"):
            store.put(1, state(1))
        with pytest.raises(SnapshotError, match="is closed"):
            store.get(1, empty())

    def test_context_manager(self, store):
        with store as same:
            assert same is store
            store.put(1, state(1))
        with pytest.raises(SnapshotError, match="is closed"):
            store.delete(1)
