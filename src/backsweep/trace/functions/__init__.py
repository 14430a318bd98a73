"""NumPy's functions and methods on traced arrays, registered by being imported."""

from backsweep.trace.functions import (
    contractions,
    creation,
    joining,
    methods,
    reductions,
    selection,
    shaping,
)

__all__ = [
    "contractions",
    "creation",
    "joining",
    "methods",
    "reductions",
    "selection",
    "shaping",
]
