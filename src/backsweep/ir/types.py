"""Types of the values in a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backsweep.ir.program import Program


@dataclass(frozen=True, slots=True)
class ArrayType:
    """Shape and dtype of a value that is known before the program runs.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    weak : bool
        True for what came from a Python scalar and therefore does not promote
        an array's dtype (NEP 50).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_inexact(self) -> bool:
        """True for real and complex floating point: what can carry a derivative."""
        return self.dtype.kind in "fc"

    def with_shape(self, shape: tuple[int, ...]) -> ArrayType:
        return ArrayType(tuple(int(n) for n in shape), self.dtype, self.weak)

    def with_dtype(self, dtype: np.dtype) -> ArrayType:
        return ArrayType(self.shape, np.dtype(dtype))

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"{_SHORT[self.dtype.kind]}{self.dtype.itemsize * 8}[{dims}]"


_SHORT = {"f": "f", "c": "c", "i": "i", "u": "u", "b": "b"}


@dataclass(frozen=True, slots=True)
class TrajectoryType:
    """The snapshots that a forward scan leaves for its reverse sweep."""

    step: Program = field(compare=False)
    length: int

    shape: tuple[int, ...] = ()

    @property
    def is_inexact(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"trajectory[{self.length if self.length >= 0 else '?'}]"


Type = ArrayType | TrajectoryType
