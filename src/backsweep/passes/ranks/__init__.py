"""Programs that call collectives themselves, each rank with local arrays: placements and checks."""

from backsweep.passes.ranks.agree import (
    Line,
    adjoint_step,
    communicator,
    messages,
    replicated_part,
)
from backsweep.passes.ranks.ghosted import check_sums
from backsweep.passes.ranks.place import collectives, place

__all__ = [
    "Line",
    "adjoint_step",
    "check_sums",
    "collectives",
    "communicator",
    "messages",
    "place",
    "replicated_part",
]
