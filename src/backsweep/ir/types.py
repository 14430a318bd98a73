"""Types of the values in a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from typing import Literal as Choice

import numpy as np

if TYPE_CHECKING:
    from backsweep.ir.program import Program


Placement = Choice["replicated", "varying"]
"""Of a value on several ranks: the same on all of them, counted once; or each rank's own."""


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
    placement : {"replicated", "varying"}, optional
        None in programs that say nothing of ranks, and of constants, which have no derivative
        and go with either.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool = False
    placement: Placement | None = None

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

    def placed(self, placement: Placement | None) -> ArrayType:
        return self if placement == self.placement else replace(self, placement=placement)

    def fits(self, other: ArrayType) -> bool:
        """Whether a value of this type may stand where the other one is wanted."""
        return (self.shape, self.dtype) == (other.shape, other.dtype) and (
            self.placement == other.placement or None in (self.placement, other.placement)
        )

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        place = f" {self.placement}" if self.placement else ""
        return f"{_SHORT[self.dtype.kind]}{self.dtype.itemsize * 8}[{dims}]{place}"


_SHORT = {"f": "f", "c": "c", "i": "i", "u": "u", "b": "b"}


@dataclass(frozen=True, slots=True)
class TrajectoryType:
    """The snapshots that a forward scan leaves for its reverse sweep."""

    step: Program = field(compare=False)
    length: int

    shape: tuple[int, ...] = ()
    placement: None = None

    @property
    def is_inexact(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"trajectory[{self.length if self.length >= 0 else '?'}]"


Type = ArrayType | TrajectoryType


def joined_placement(types: Sequence[Type]) -> Placement | None:
    """Of what is computed from values on each rank: its own as soon as one of them is."""
    found: Placement | None = None
    for type in types:
        if type.placement == "varying":
            return "varying"
        found = found or type.placement
    return found
