"""Memory for compiled code: aligned, zeroed once, known by address."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

ALIGNMENT = 64
SKEW = 256
"""Bytes between consecutive arrays: equal offsets modulo a page slow the caches down."""


CALL = ctypes.CFUNCTYPE(None)
"""A Python function that compiled code calls; it must be kept alive."""


def address_of(call: Any) -> int:
    """Of a `CALL`."""
    # `ctypes.cast` would refer back to it: a cycle that keeps the arrays of a sweep.
    return ctypes.c_size_t.from_buffer_copy(call).value


def round_up(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


KEPT_BYTES = 1 << 26
"""Blocks in use and those that wait for the next sweep take this more than was once in use."""

MAX_PASSED = 16
"""A block is given back when so many others had to be made while it waited."""


class _Pool:
    """Memory of sweeps: fresh pages cost more than the steps that fill them.

    What nobody uses waits for the next sweep. Finalizers of other threads, or in the middle of
    these methods, may add to it: what is changed is changed by one call of a dict.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, np.ndarray] = {}
        self.passed: dict[int, int] = {}
        """How many blocks had to be made while each of them waited."""
        self.used: dict[int, int] = {}
        """Bytes of the blocks in use."""
        self.most = 0
        """Bytes that were in use at once."""

    def take(self, n: int) -> np.ndarray | None:
        """A block that waits, of about n bytes."""
        for key, block in _items(self.waiting):
            # Another thread may have been faster: who pops it has it.
            if n <= block.nbytes <= 2 * n and self.waiting.pop(key, None) is not None:
                self.passed.pop(key, None)
                self.use(block)
                return block
        return None

    def use(self, block: np.ndarray) -> None:
        self.used[id(block)] = block.nbytes
        self.most = max(self.most, self.used_bytes())

    def keep(self, block: np.ndarray) -> None:
        self.used.pop(id(block), None)
        self.waiting[id(block)] = block

    def make_room(self, n: int) -> None:
        """Give blocks back that wait in vain, or that together with n new bytes are too many."""
        used = self.used_bytes() + n
        most = max(self.most, used)
        waiting = sorted(_items(self.waiting), key=lambda entry: -entry[1].nbytes)
        total = used + sum(block.nbytes for _, block in waiting)
        for key, block in waiting:
            self.passed[key] = self.passed.get(key, 0) + 1
            if total > most + KEPT_BYTES or self.passed[key] > MAX_PASSED:
                total -= block.nbytes
                self.waiting.pop(key, None)
                self.passed.pop(key, None)

    def used_bytes(self) -> int:
        return sum(size for _, size in _items(self.used))

    def clear(self) -> None:
        self.waiting.clear()
        self.passed.clear()
        self.most = self.used_bytes()


_pool = _Pool()


def _items(of: dict[int, T]) -> list[tuple[int, T]]:
    while True:
        try:
            return list(of.items())
        except RuntimeError:  # garbage collection has just added a block
            continue


def spare_bytes() -> int:
    """Bytes that are kept for the next sweep and used by nobody now."""
    return sum(block.nbytes for _, block in _items(_pool.waiting))


def release_memory() -> int:
    """Give memory that is kept for the next gradient back to the system.

    The blocks of a sweep (trajectory, snapshots, work arrays) stay allocated when it is over,
    because fresh pages cost more time than the steps that fill them. They are counted as free
    where a budget is planned; call this where another library needs them.

    Returns
    -------
    int
        Bytes given back.
    """
    n_bytes = spare_bytes()
    _pool.clear()
    return n_bytes


def work_array(n: int, dtype: Any, *, zeroed: bool = True) -> np.ndarray:
    """An array of n elements whose memory goes to the next sweep when nobody refers to it."""
    dtype = np.dtype(dtype)
    n_bytes = max(n * dtype.itemsize, 1)
    block = _pool.take(n_bytes)
    if block is None:
        _pool.make_room(n_bytes)
        block = (np.zeros if zeroed else np.empty)(n_bytes, np.uint8)
        _pool.use(block)
    elif zeroed:
        block[:n_bytes] = 0
    # The base of what follows is a memoryview: all views of this array keep this array alive.
    array = np.frombuffer(memoryview(block), dtype, n)  # type: ignore[arg-type]
    weakref.finalize(array, _pool.keep, block).atexit = False
    return array


class Arena:
    """One block of memory that is cut into pieces.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of each piece.
    zeroed : bool
        Whether the pieces must begin as zeros.
    """

    def __init__(self, sizes: Sequence[int], *, zeroed: bool = True) -> None:
        self.offsets: list[int] = []
        total = ALIGNMENT
        for k, size in enumerate(sizes):
            self.offsets.append(total + (k % 16) * SKEW)
            total = self.offsets[-1] + round_up(size)
        block = work_array(total + ALIGNMENT, np.uint8, zeroed=zeroed)
        base = block.ctypes.data
        self._block = block
        self.base = base + (-base) % ALIGNMENT
        self.nbytes = total

    def address(self, k: int) -> int:
        return self.base + self.offsets[k]


def view(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array on memory that somebody else keeps alive."""
    n = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if n == 0:
        return np.zeros(shape, dtype)
    raw = (ctypes.c_uint8 * n).from_address(address)
    return np.frombuffer(memoryview(raw), dtype=dtype).reshape(shape)


def prepared(value: Any, dtype: np.dtype) -> np.ndarray:
    """A contiguous array with at least one element, whose address can be passed."""
    array = np.ascontiguousarray(value, dtype=dtype)
    return array if array.size else np.zeros(1, dtype)
