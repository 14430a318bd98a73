"""Declarations of all primitives."""

from backsweep.primitives import control, elementwise, external, gather, index, reduce, shape
from backsweep.primitives.registry import REGISTRY

__all__ = ["REGISTRY", "control", "elementwise", "external", "gather", "index", "reduce", "shape"]
