"""What a rank holds of the carried arrays of a scan that is cut into blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.comm.boxes import Box, is_empty, volume


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
    is_read : bool
        Whether this rank reads more of it than it owns.
    source : int
        Number of the field that a step hands on to it; its own where the step computes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    owned: Box
    layout: Box
    component: int
    is_read: bool
    source: int

    def ghost_boxes(self) -> list[Box]:
        """The ghosts, as boxes of the local array."""
        first = [lo for lo, _ in self.layout]
        rest = [(lo - f, hi - f) for f, (lo, hi) in zip(first, self.layout, strict=True)]
        if is_empty(self.owned):
            return [tuple(rest)]
        found = []
        for axis, (f, (lo, hi)) in enumerate(zip(first, self.owned, strict=True)):
            begin, end = rest[axis]
            for part in ((begin, lo - f), (hi - f, end)):
                if part[0] < part[1]:
                    found.append((*rest[:axis], part, *rest[axis + 1 :]))
            rest[axis] = (lo - f, hi - f)
        return found

    @property
    def ghost_bytes(self) -> int:
        """What the rank receives of it."""
        return (volume(self.layout) - volume(self.owned)) * self.dtype.itemsize


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
    kept : list
        What the runtime has prepared for its messages: at most one thing.
    """

    states: tuple[HaloField, ...]
    bars: tuple[HaloField, ...]
    comm: Any = field(repr=False)
    adds_up: bool = False
    kept: list[Any] = field(default_factory=list, repr=False)

    @property
    def fetched(self) -> tuple[int, ...]:
        """Cotangents, by their component, of which this rank alone would have ghosts fetched."""
        return components(self.bars, made_of_read(self.bars, [f.is_read for f in self.bars]))

    @property
    def step_bytes(self) -> tuple[int, int]:
        """What a rank receives after a step forward, and after one of the adjoint."""
        sizes = [
            sum(g[k].ghost_bytes for k in made_of_read(g, [f.is_read for f in g]))
            for g in (self.states, self.bars)
        ]
        return sizes[0], sizes[1]

    def __repr__(self) -> str:
        return f"halo of {len(self.states)} states, {len(self.bars)} cotangents"


def made_of_read(fields: Sequence[HaloField], read: Sequence[bool]) -> list[int]:
    """Numbers of the fields that a step computes and a later one reads beyond its block.

    What is read may be what an earlier step has computed, handed on since.
    """
    wanted = list(read)
    for _ in fields:
        for k, f in enumerate(fields):
            if wanted[k] and f.source >= 0:
                wanted[f.source] = True
    return [k for k, f in enumerate(fields) if wanted[k] and f.source == k]


def components(fields: Sequence[HaloField], numbers: Sequence[int]) -> tuple[int, ...]:
    """Of the fields of some numbers, where the rank has them."""
    return tuple(fields[k].component for k in numbers if fields[k].component >= 0)
