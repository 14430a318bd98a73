"""Sixteen hexadecimal digits by which two results are compared at a glance.

The sum modulo 2^64 of a 64-bit mix (splitmix64, Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195) of leaf number, global index and bits of each value: blocks of
an array add up, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

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


def fingerprint(leaves: Iterable[Any]) -> str:
    """Fingerprint of a sequence of arrays.

    Examples
    --------
    >>> fingerprint([np.zeros(3)]) == fingerprint([-np.zeros(3)])
    True
    """
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for number, leaf in enumerate(leaves):
            words = _bits(np.ascontiguousarray(leaf).reshape(-1))
            salt = _mix(np.array([number + 1], np.uint64))
            for begin in range(0, words.size, _CHUNK):
                part = words[begin : begin + _CHUNK]
                index = np.arange(begin, begin + part.size, dtype=np.uint64)
                total += np.sum(_mix(part ^ _mix(index ^ salt)), dtype=np.uint64)
    return f"{int(total):016x}"
