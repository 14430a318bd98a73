"""The table of all primitives."""

from __future__ import annotations

from backsweep.ir import Primitive

REGISTRY: dict[str, Primitive] = {}


def declare(primitive: Primitive) -> Primitive:
    """Enter a primitive in the table; a name stands there once."""
    assert primitive.name not in REGISTRY, primitive.name
    REGISTRY[primitive.name] = primitive
    return primitive
