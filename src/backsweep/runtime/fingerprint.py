"""Sixteen hexadecimal digits by which two results are compared at a glance.

The sum modulo 2^64 of a 64-bit mix (splitmix64, Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195) of leaf number, global index and bits of each value: blocks of
an array add up, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from backsweep.comm import BlockedArray

_CHUNK = 1 << 18


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _bits(values: np.ndarray) -> np.ndarray:
    """Bits as unsigned 64-bit words; zeros lose their sign."""
    if values.dtype.kind == "c":
        values = values.view(np.dtype(f"f{values.dtype.itemsize // 2}"))
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)
        return values.view(np.dtype(f"u{values.dtype.itemsize}")).astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _sum_of(words: np.ndarray, index: np.ndarray, number: int) -> int:
    """Of words at their places in leaf `number`."""
    salt = _mix(np.array([number + 1], np.uint64))
    total = np.uint64(0)
    for begin in range(0, words.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        total += np.sum(_mix(words[part] ^ _mix(index[part] ^ salt)), dtype=np.uint64)
    return int(total)


def _places(shape: tuple[int, ...], box: Sequence[tuple[int, int]], n_words: int) -> np.ndarray:
    """Numbers of the words of a part of an array, in the whole of it."""
    flat, stride = np.zeros((), np.uint64), 1
    for axis in reversed(range(len(shape))):
        line = np.arange(*box[axis], dtype=np.uint64) * np.uint64(stride)
        flat = flat + line.reshape(-1, *(1,) * (len(shape) - 1 - axis))
        stride *= shape[axis]
    words = np.arange(n_words, dtype=np.uint64)
    return (flat.reshape(-1, 1) * np.uint64(n_words) + words).reshape(-1)


def fingerprint(leaves: Iterable[Any]) -> str:
    """Fingerprint of a sequence of arrays.

    Of a `BlockedArray` each rank has a part: then every rank must call.

    Examples
    --------
    >>> fingerprint([np.zeros(3)]) == fingerprint([-np.zeros(3)])
    True
    """
    total = 0
    with np.errstate(over="ignore"):
        for number, leaf in enumerate(leaves):
            if isinstance(leaf, BlockedArray):
                total += _of_blocks(leaf, number)
                continue
            words = _bits(np.ascontiguousarray(leaf).reshape(-1))
            total += _sum_of(words, np.arange(words.size, dtype=np.uint64), number)
    return f"{total % (1 << 64):016x}"


def _of_blocks(array: BlockedArray, number: int) -> int:
    words = _bits(np.ascontiguousarray(array.local).reshape(-1))
    n_words = 2 if array.dtype.kind == "c" else 1
    own = _sum_of(words, _places(array.shape, array.box, n_words), number)
    return sum(array.comm.allgather(own))
