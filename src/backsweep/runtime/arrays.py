"""Memory for compiled code: aligned, zeroed once, known by address."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 64
SKEW = 256
"""Bytes between consecutive arrays: equal offsets modulo a page slow the caches down."""


def round_up(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


REUSED_FROM = 1 << 25
"""Bytes from which a block is kept for the next trajectory: fresh pages cost more than steps."""

_spare: list[np.ndarray] = []


def spare_bytes() -> int:
    """Bytes that are kept for the next trajectory and used by nobody now."""
    return sum(block.nbytes for block in list(_spare))


def _new_block(n: int, zeroed: bool) -> np.ndarray:
    if zeroed or n < REUSED_FROM:
        return np.zeros(n, np.uint8)
    for k, block in enumerate(_spare):
        if n <= block.nbytes <= 2 * n:
            return _spare.pop(k)
    _spare.clear()
    return np.empty(n, np.uint8)


def _keep(block: np.ndarray) -> None:
    if block.nbytes >= REUSED_FROM:
        _spare[:] = [block]


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
        block = _new_block(total + ALIGNMENT, zeroed)
        if not zeroed:
            weakref.finalize(self, _keep, block)
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
