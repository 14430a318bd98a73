"""Memory for compiled code: aligned, zeroed once, known by address."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 64
SKEW = 256
"""Bytes between consecutive arrays: equal offsets modulo a page slow the caches down."""


def round_up(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


class Arena:
    """One block of memory that is cut into pieces."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.offsets: list[int] = []
        total = ALIGNMENT
        for k, size in enumerate(sizes):
            self.offsets.append(total + (k % 16) * SKEW)
            total = self.offsets[-1] + round_up(size)
        self._block = np.zeros(total + ALIGNMENT, np.uint8)
        base = self._block.ctypes.data
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
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def prepared(value: Any, dtype: np.dtype) -> np.ndarray:
    """A contiguous array with at least one element, whose address can be passed."""
    array = np.ascontiguousarray(value, dtype=dtype)
    return array if array.size else np.zeros(1, dtype)
