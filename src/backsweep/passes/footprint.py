"""Which part of each input a part of an output reads.

Ranges are half-open, one for each dimension; a range is the hull of what is read. The facts
about single equations stand in `primitives.access`; this goes through whole programs.
"""

from __future__ import annotations

from collections.abc import Sequence

from backsweep.ir import ArrayType, Atom, Equation, Literal, Program, Var
from backsweep.primitives.access import (
    PATCHES,
    identity,
    input_accesses,
    is_memory_reshape,
    is_opaque,
)

Ranges = tuple[tuple[int, int], ...]

_REDUCTIONS = {"sum", "reduce_max", "reduce_min"}


def whole(type: ArrayType) -> Ranges:
    return tuple((0, n) for n in type.shape)


def read_ranges(eqn: Equation, ranges: Ranges) -> list[Ranges | None]:
    """The footprint of one equation.

    Parameters
    ----------
    eqn : Equation
    ranges : tuple of (int, int)
        Part of the (first) output.

    Returns
    -------
    list of ranges, None where an input is not read
        One for each input.
    """
    name = eqn.primitive.name
    types = [a.type for a in eqn.inputs]
    if name in _REDUCTIONS:
        kept = iter(ranges)
        axes = eqn.params["axes"]
        shape = types[0].shape
        return [tuple((0, n) if k in axes else next(kept) for k, n in enumerate(shape))]
    if name == "einsum":
        return _einsum_ranges(eqn, ranges)
    if name in ("argmax", "argmin"):
        return [(*ranges, (0, types[0].shape[-1]))]
    if name == "cumsum":
        axis = eqn.params["axis"]
        return [(*ranges[:axis], (0, types[0].shape[axis]), *ranges[axis + 1 :])]
    if name in PATCHES or is_opaque(eqn) or eqn.primitive.kind == "control":
        return [whole(t) if isinstance(t, ArrayType) else None for t in types]
    if is_memory_reshape(eqn):
        return [whole(types[0])]  # type: ignore[arg-type]
    if name in ("pad", "update"):
        value = _inside_region(eqn, ranges)
        return [value] if name == "pad" else [ranges, value]
    found: dict[Atom, Ranges | None] = {}
    access = identity([hi for _, hi in ranges], (0,) * len(ranges))
    for atom, inner in input_accesses(eqn, access):
        if isinstance(atom, Literal):
            continue
        if name == "gather" and atom is eqn.inputs[0]:
            n_points = eqn.inputs[1].type.ndim  # type: ignore[union-attr]
            n = len(eqn.inputs) - 1
            rest = ranges[n_points:]
            found[atom] = (*whole(atom.type)[:n], *rest)  # type: ignore[arg-type]
            continue
        spans = [i.over(ranges) for i in inner]
        found[atom] = joined(found.get(atom), _clipped(spans, atom.type.shape))
    return [None if isinstance(a, Literal) else found.get(a) for a in eqn.inputs]


def joined(some: Ranges | None, more: Ranges | None) -> Ranges | None:
    """The hull of two parts of one value, such as one that is concatenated with itself."""
    if some is None or more is None:
        return more if some is None else some
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(some, more, strict=True))


def _einsum_ranges(eqn: Equation, ranges: Ranges) -> list[Ranges | None]:
    """Letters of the result as they are asked for, those that are summed over whole."""
    left, out = eqn.params["subscripts"].split("->")
    own = dict(zip(out, ranges, strict=True))
    return [
        tuple(own.get(c, (0, n)) for c, n in zip(letters, x.type.shape, strict=True))
        for letters, x in zip(left.split(","), eqn.inputs, strict=True)
    ]


def _inside_region(eqn: Equation, ranges: Ranges) -> Ranges | None:
    """The part of a padded or written value that lands in a part of the result."""
    spans = []
    for (lo, hi), start, step in zip(
        ranges, eqn.params["starts"], eqn.params["steps"], strict=True
    ):
        first, last = (lo, hi - 1) if step > 0 else (hi - 1, lo)
        spans.append((-((start - first) // step), (last - start) // step))
    return _clipped(spans, eqn.inputs[-1].type.shape)


def _clipped(spans: Sequence[tuple[int, int]], shape: Sequence[int]) -> Ranges | None:
    """Inclusive spans as half-open ranges inside an array; None where nothing is inside."""
    result = tuple((max(lo, 0), min(hi + 1, n)) for (lo, hi), n in zip(spans, shape, strict=True))
    return None if any(lo >= hi for lo, hi in result) else result


def footprint(program: Program, output: int, ranges: Ranges) -> list[Ranges | None]:
    """The part of each of a program's inputs that a part of one output reads.

    Examples
    --------
    The middle of a three-point stencil reads one more point on either side.
    """
    needed: dict[Var, Ranges] = {}

    def need(atom: Atom, more: Ranges | None) -> None:
        if not isinstance(atom, Literal) and (all_ := joined(needed.get(atom), more)) is not None:
            needed[atom] = all_

    need(program.outputs[output], ranges)
    for eqn in reversed(program.equations):
        for var in eqn.outputs:
            if var in needed:
                first = needed[var] if var is eqn.outputs[0] else whole(var.type)  # type: ignore
                for atom, read in zip(eqn.inputs, read_ranges(eqn, first), strict=True):
                    need(atom, read)
    return [needed.get(v) for v in program.inputs]
