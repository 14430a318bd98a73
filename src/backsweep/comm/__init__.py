"""Communication between the ranks of a job: a leaf that knows nothing of programs.

`connect` returns the communicator of this process: of MPI under a launcher, else of one rank.
"""

from backsweep.comm.base import AbstractComm, SerialComm
from backsweep.comm.errors import Agreed, agreement, stop_message
from backsweep.comm.launch import connect
from backsweep.comm.team import Team
from backsweep.comm.tree import TreeSum

__all__ = [
    "AbstractComm",
    "Agreed",
    "SerialComm",
    "Team",
    "TreeSum",
    "agreement",
    "connect",
    "stop_message",
]
