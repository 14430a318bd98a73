"""Ranks in groups of neighbours: each group works on items of its own, together."""

from __future__ import annotations

from dataclasses import dataclass

from backsweep.comm.base import AbstractComm
from backsweep.comm.launch import serial


@dataclass(frozen=True)
class Groups:
    """A communicator split into groups of almost equal size.

    Attributes
    ----------
    whole : AbstractComm
    own : AbstractComm
        The ranks of this rank's group.
    leaders : AbstractComm or None
        The first ranks of all groups; None on the others. The root of all leads the first group.
    index, count : int
        Number of this rank's group, and of groups.
    """

    whole: AbstractComm
    own: AbstractComm
    leaders: AbstractComm | None
    index: int
    count: int

    @classmethod
    def of(cls, comm: AbstractComm, ranks_per_group: int = 1) -> Groups:
        """Groups of at least so many ranks, or of all of them. Collective: every rank must call."""
        count = max(1, comm.size // ranks_per_group)
        if count == comm.size:
            return cls(comm, serial(), comm, comm.rank, comm.size)
        index = comm.rank * count // comm.size
        own = comm.split(index)
        leaders = comm.split(int(not own.is_root))
        return cls(comm, own, leaders if own.is_root else None, index, count)

    @property
    def is_leader(self) -> bool:
        return self.leaders is not None
