"""Communication between the ranks of a job: a leaf that knows nothing of programs.

`connect` returns the communicator of this process: of MPI under a launcher, else of one rank.
`halo_exchange`, `allreduce_sum`, ... work on plain arrays and inside of traced functions.
"""

from backsweep.comm.base import AbstractComm, SerialComm
from backsweep.comm.blocked import BlockedArray
from backsweep.comm.check import require_equal
from backsweep.comm.collectives import (
    allreduce_max,
    allreduce_min,
    allreduce_sum,
    broadcast,
    gather,
    halo_exchange,
    scatter,
)
from backsweep.comm.errors import Agreed, agreement, stop_message
from backsweep.comm.grid import Decomposition
from backsweep.comm.groups import Groups
from backsweep.comm.halo import HaloExchange
from backsweep.comm.launch import connect, serial, world
from backsweep.comm.planned import PlannedComm
from backsweep.comm.team import Team
from backsweep.comm.tree import TreeSum

__all__ = [
    "AbstractComm",
    "Agreed",
    "BlockedArray",
    "Decomposition",
    "Groups",
    "HaloExchange",
    "PlannedComm",
    "SerialComm",
    "Team",
    "TreeSum",
    "agreement",
    "allreduce_max",
    "allreduce_min",
    "allreduce_sum",
    "broadcast",
    "connect",
    "gather",
    "halo_exchange",
    "require_equal",
    "scatter",
    "serial",
    "stop_message",
    "world",
]
