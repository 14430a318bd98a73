"""Programs that call collectives themselves, each rank with local arrays: placements and checks."""

from backsweep.passes.ranks.agree import (
    Line,
    adjoint_step,
    communicator,
    message,
    messages,
    replicated_part,
)
from backsweep.passes.ranks.detach import attached_to, detached
from backsweep.passes.ranks.ghosted import check_sums
from backsweep.passes.ranks.place import collectives, place

__all__ = [
    "Line",
    "adjoint_step",
    "attached_to",
    "check_sums",
    "collectives",
    "communicator",
    "detached",
    "message",
    "messages",
    "place",
    "replicated_part",
]
