"""Which arrays lie on the grid that is cut."""

from __future__ import annotations

from typing import Any

from backsweep.comm import Decomposition
from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Program
from backsweep.passes.partition.placement import Anchor, Placement, nowhere


def check_grid(program: Program, decomposition: Decomposition) -> None:
    """Refuse a decomposition that cuts none of the arrays that go in."""
    types = [v.type for v in program.inputs if isinstance(v.type, ArrayType)]
    if not any(field_placement(t, decomposition).is_cut for t in types):
        shapes = ", ".join(str(s) for s in dict.fromkeys(t.shape for t in types))
        raise DecompositionError(
            "nothing would be cut: the last dimensions of no argument or captured array are those "
            f"of the grid, {decomposition.shape}; their shapes are {shapes}: give Decomposition "
            "the shape of the arrays that the function works on"
        )


def field_placement(type: Any, decomposition: Decomposition) -> Placement:
    """Arrays whose last dimensions are those of the grid are cut like it."""
    shape, n = decomposition.shape, len(decomposition.shape)
    if not isinstance(type, ArrayType) or type.shape[-n:] != shape:
        return nowhere(type)
    first = type.ndim - n
    anchors: list[Anchor | None] = [None] * type.ndim
    for axis in decomposition.axes:
        anchors[first + axis] = Anchor(axis, 0, 1, shape[axis])
    return Placement(tuple(anchors))
