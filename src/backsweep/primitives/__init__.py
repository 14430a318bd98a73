"""Declarations of all primitives."""

from backsweep.primitives import (
    communication,
    control,
    elementwise,
    external,
    gather,
    index,
    reduce,
    shape,
)
from backsweep.primitives.registry import REGISTRY

__all__ = [
    "REGISTRY",
    "communication",
    "control",
    "elementwise",
    "external",
    "gather",
    "index",
    "reduce",
    "shape",
]
