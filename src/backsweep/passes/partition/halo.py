"""What a rank holds of the carried arrays of a scan that is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.passes.partition.demand import Box


@dataclass(frozen=True)
class HaloField:
    """One carried array of a scan, as one rank holds it.

    Attributes
    ----------
    shape : tuple of int
        Of the global array.
    dtype : dtype
    owned, layout : Box
        What belongs to the rank, and what it holds: indices of the global array, which wrap around
        the ends of periodic axes.
    component : int
        Number among the local carries; -1 where the rank holds nothing of it.
    is_made : bool
        Whether a step computes it; else it is handed on, with its halo.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    owned: Box
    layout: Box
    component: int
    is_made: bool

    @property
    def has_halo(self) -> bool:
        return self.owned != self.layout


@dataclass(frozen=True, eq=False)
class Halo:
    """The carried arrays of a scan whose ghosts are fetched from other ranks.

    Attributes
    ----------
    states, bars : tuple of HaloField
        Of the carry, and of its cotangents. Every rank has the same ones in the same order.
    comm : AbstractComm
    adds_up : bool
        Whether values are added up over ranks inside the step or its adjoint.
    """

    states: tuple[HaloField, ...]
    bars: tuple[HaloField, ...]
    comm: Any = field(repr=False)
    adds_up: bool = False

    def __repr__(self) -> str:
        return f"halo of {len(self.states)} states, {len(self.bars)} cotangents"
