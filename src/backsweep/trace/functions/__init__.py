"""NumPy's functions and methods on traced arrays, registered by being imported."""

from backsweep.trace.functions import (
    collectives,
    contractions,
    creation,
    joining,
    methods,
    reductions,
    selection,
    shaping,
)

__all__ = [
    "collectives",
    "contractions",
    "creation",
    "joining",
    "methods",
    "reductions",
    "selection",
    "shaping",
]
