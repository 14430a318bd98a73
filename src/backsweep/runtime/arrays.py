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

_spare: dict[int, np.ndarray] = {}
"""Blocks that nobody uses now, by id: fresh pages cost more than the steps that fill them."""

_passed: dict[int, int] = {}
"""How many blocks had to be made while each of them waited."""

_used: dict[int, int] = {}
"""Bytes of the blocks in use, by id."""

_most = 0
"""Bytes that were in use at once."""


def spare_bytes() -> int:
    """Bytes that are kept for the next sweep and used by nobody now."""
    return sum(block.nbytes for _, block in _waiting())


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
    global _most
    n_bytes, _most = spare_bytes(), 0
    _spare.clear()
    _passed.clear()
    return n_bytes


def _waiting() -> list[tuple[int, np.ndarray]]:
    return _items(_spare)


def _items(of: dict[int, T]) -> list[tuple[int, T]]:
    while True:
        try:
            return list(of.items())
        except RuntimeError:  # garbage collection has just added a block
            continue


def _taken(n: int) -> np.ndarray | None:
    """A spare block of about n bytes."""
    for key, block in _waiting():
        # Another thread may have been faster: who pops it has it.
        if n <= block.nbytes <= 2 * n and _spare.pop(key, None) is not None:
            _passed.pop(key, None)
            return block
    return None


def _used_bytes() -> int:
    return sum(size for _, size in _items(_used))


def _make_room(n: int) -> None:
    """Give blocks back that wait in vain, or that together with n new bytes are too many."""
    used = _used_bytes() + n
    most = max(_most, used)
    waiting = sorted(_waiting(), key=lambda entry: -entry[1].nbytes)
    total = used + sum(block.nbytes for _, block in waiting)
    for key, block in waiting:
        _passed[key] = _passed.get(key, 0) + 1
        if total > most + KEPT_BYTES or _passed[key] > MAX_PASSED:
            total -= block.nbytes
            _spare.pop(key, None)
            _passed.pop(key, None)


def _keep(block: np.ndarray) -> None:
    _used.pop(id(block), None)
    _spare[id(block)] = block


def work_array(n: int, dtype: Any, *, zeroed: bool = True) -> np.ndarray:
    """An array of n elements whose memory goes to the next sweep when nobody refers to it."""
    global _most
    dtype = np.dtype(dtype)
    n_bytes = max(n * dtype.itemsize, 1)
    block = _taken(n_bytes)
    if block is None:
        _make_room(n_bytes)
        block = (np.zeros if zeroed else np.empty)(n_bytes, np.uint8)
    elif zeroed:
        block[:n_bytes] = 0
    _used[id(block)] = block.nbytes
    _most = max(_most, _used_bytes())
    # The base of what follows is a memoryview: all views of this array keep this array alive.
    array = np.frombuffer(memoryview(block), dtype, n)  # type: ignore[arg-type]
    weakref.finalize(array, _keep, block).atexit = False
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
