"""A store in memory: one arena, allocated once, cut into slots that are used again.

What the contract of stores and the background store are tested with.

Pages that no snapshot has touched yet cost nothing, so that a generous number of slots
is free until it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.storage.base import AbstractStore, Array, Layout

ALIGNMENT: Final = 64
"""Bytes: a cache line, and the widest vector register."""


def slot_nbytes(layout: Layout) -> int:
    """Bytes that one snapshot takes in a `MemoryStore`, padding included.

    Examples
    --------
    >>> slot_nbytes(Layout(("u", "v"), ((3,), (17,)), ("float32", "float32")))
    192
    """
    return sum(_aligned(nbytes) for nbytes in layout.field_nbytes)


@final
class MemoryStore(AbstractStore):
    """Snapshots in one preallocated block of memory.

    Parameters
    ----------
    layout : Layout
        Of every snapshot.
    n_slots : int
        Snapshots that can be held at a time, at least 1.

    Raises
    ------
    SnapshotError
        If `n_slots` is below 1, or the arena cannot be allocated.

    Notes
    -----
    Takes ``n_slots * slot_nbytes(layout)`` bytes. Every field starts at a multiple of 64
    bytes. A freed slot is the first to be used again, while it is warm in the caches.

    Examples
    --------
    >>> import numpy as np
    >>> with MemoryStore(Layout(("u",), ((2,),), ("float64",)), n_slots=3) as store:
    ...     store.put(7, [np.array([1.0, 2.0])])
    ...     u = np.empty(2)
    ...     store.get(7, [u])
    >>> u
    array([1., 2.])
    """

    def __init__(self, layout: Layout, n_slots: int) -> None:
        super().__init__(layout)
        if n_slots < 1:
            raise SnapshotError(f"a memory store of {n_slots} slots can hold nothing")
        self.n_slots = n_slots
        self._slot_nbytes = slot_nbytes(layout)
        try:
            block = np.empty(n_slots * self._slot_nbytes + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError) as error:
            raise SnapshotError(
                f"{n_slots} snapshots of {self._slot_nbytes} bytes do not fit into memory"
            ) from error
        self._arena = block[-block.ctypes.data % ALIGNMENT :]
        self._free = list(range(n_slots - 1, -1, -1))
        self._slots: dict[int, int] = {}

    def _write(self, key: int, arrays: Sequence[Array]) -> None:
        slot = self._slots.get(key)
        if slot is None:
            if not self._free:
                raise SnapshotError(
                    f"no slot is free for the snapshot of step {key}: all {self.n_slots} are "
                    f"taken, by the steps {self.keys()}"
                )
            slot = self._slots[key] = self._free.pop()
        for place, array in zip(self._fields(slot), arrays, strict=True):
            place[...] = array

    def _read(self, key: int, out: Sequence[Array]) -> None:
        for place, array in zip(self._fields(self._slots[key]), out, strict=True):
            array[...] = place

    def _remove(self, key: int) -> None:
        self._free.append(self._slots.pop(key))

    def _release(self) -> None:
        self._arena = np.empty(0, np.uint8)
        self._slots.clear()

    def _fields(self, slot: int) -> list[Array]:
        """The arrays of a slot, as views of the arena."""
        start = slot * self._slot_nbytes
        fields = []
        for shape, dtype, nbytes in zip(
            self.layout.shapes, self.layout.dtypes, self.layout.field_nbytes, strict=True
        ):
            fields.append(self._arena[start : start + nbytes].view(dtype).reshape(shape))
            start += _aligned(nbytes)
        return fields


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
