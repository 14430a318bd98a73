"""What must be the same on all ranks before they start."""

from __future__ import annotations

from backsweep.comm.base import AbstractComm
from backsweep.comm.errors import Agreed

_MAX_SHOWN = 100  # characters


def require_equal(comm: AbstractComm, what: str, digest: str) -> None:
    """Refuse to go on if a text differs between ranks. Collective: every rank must call.

    Parameters
    ----------
    comm : AbstractComm
    what : str
        What the text stands for, as a message begins: "the traced program".
    digest : str

    Raises
    ------
    Agreed
        On every rank, with the ranks that differ from rank 0.
    """
    digests = comm.allgather(digest)
    differing = [rank for rank, found in enumerate(digests) if found != digests[0]]
    if differing:
        first = differing[0]
        named = f"rank{'' if len(differing) == 1 else 's'} {', '.join(map(str, differing))}"
        raise Agreed(
            f"{what} is not the same on all ranks: {named} of {comm.size} differ from rank 0 "
            f"({_shown(digests[first])} on rank {first}, {_shown(digests[0])} on rank 0); all "
            "ranks must run the same script with the same settings",
            first,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "...")


__all__ = ["require_equal"]
