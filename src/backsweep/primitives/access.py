"""Which index of each input an index of an output reads: one analysis, by kind of primitive.

An index is affine in one loop dimension. Code generation fuses and places margins with it
(`codegen.plan`), `passes.footprint` turns it into index ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backsweep.ir import Atom, Equation, Literal
from backsweep.primitives.shape import reshape

OPAQUE = {"reduce_max", "reduce_min", "argmax", "argmin", "cumsum", "inner_scan", "inner_reverse"}
PATCHES = {"scatter", "scatter_add"}


def is_opaque(eqn: Equation) -> bool:
    """Whether an operation reads and makes whole values in memory."""
    return eqn.primitive.name in OPAQUE or eqn.primitive.kind == "communication"


UNROLLED_SUM = 8
"""Sums over at most this many elements are written out inside the expression."""


@dataclass(frozen=True, slots=True)
class Index:
    """stride * i[dim] + constant; dim is -1 for a constant."""

    dim: int
    stride: int
    constant: int

    def shifted(self, by: int) -> Index:
        return Index(self.dim, self.stride, self.constant + by)

    def over(self, box: Box) -> tuple[int, int]:
        """Smallest and largest value in a box."""
        if self.dim < 0:
            return self.constant, self.constant
        lo, hi = box[self.dim]
        ends = (self.stride * lo + self.constant, self.stride * (hi - 1) + self.constant)
        return min(ends), max(ends)


Access = tuple[Index, ...]
Box = tuple[tuple[int, int], ...]
ZERO_INDEX = Index(-1, 0, 0)


def identity(shape: Sequence[int], origin: Sequence[int]) -> Access:
    """The access of a root whose index is the loop index minus its origin."""
    return tuple(Index(d, 1, -o) for d, o in zip(range(len(shape)), origin, strict=True))


def only_ones_differ(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def is_short_sum(eqn: Equation) -> bool:
    x = eqn.inputs[0]
    n = x.type.shape[-1] if x.type.ndim else 0  # type: ignore[union-attr]
    return eqn.params["axes"] == (x.type.ndim - 1,) and 0 < n <= UNROLLED_SUM  # type: ignore


def is_memory_reshape(eqn: Equation) -> bool:
    """A reshape that is another view of the same memory, so that its operand is stored."""
    return eqn.primitive is reshape and not only_ones_differ(
        eqn.inputs[0].type.shape, eqn.outputs[0].type.shape
    )


def input_accesses(eqn: Equation, access: Access) -> list[tuple[Atom, Access]]:
    """Which index of each input an index of the output reads, cuts ignored."""
    name, p, ins = eqn.primitive.name, eqn.params, eqn.inputs
    if name == "slice":
        moved = tuple(
            Index(i.dim, i.stride * step, i.constant * step + start)
            for i, start, step in zip(access, p["starts"], p["steps"], strict=True)
        )
        return [(ins[0], moved)]
    if name in ("pad", "update"):
        moved = tuple(
            Index(i.dim, i.stride // step or 1, (i.constant - start) // step)
            for i, start, step in zip(access, p["starts"], p["steps"], strict=True)
        )
        return [(ins[0], moved)] if name == "pad" else [(ins[0], access), (ins[1], moved)]
    if name == "concatenate":
        out, start, axis = [], 0, p["axis"]
        for x in ins:
            out.append((x, (*access[:axis], access[axis].shifted(-start), *access[axis + 1 :])))
            start += x.type.shape[axis]
        return out
    return _other_accesses(eqn, access)


def _other_accesses(eqn: Equation, access: Access) -> list[tuple[Atom, Access]]:
    name, p, ins = eqn.primitive.name, eqn.params, eqn.inputs
    zero = Index(-1, 0, 0)
    if name == "broadcast":
        if isinstance(ins[0], Literal):
            return []
        pairs = zip(ins[0].type.shape, p["dims"], strict=True)
        return [(ins[0], tuple(access[d] if n == p["shape"][d] else zero for n, d in pairs))]
    if name == "transpose":
        moved = [zero] * len(access)
        for k, axis in enumerate(p["axes"]):
            moved[axis] = access[k]
        return [(ins[0], tuple(moved))]
    if name == "reshape":
        shape = eqn.outputs[0].type.shape
        if is_memory_reshape(eqn):
            return [(ins[0], (zero,) * len(ins[0].type.shape))]
        used = iter(i for i, n in zip(access, shape, strict=True) if n != 1)
        return [(ins[0], tuple(next(used) if n != 1 else zero for n in ins[0].type.shape))]
    if name == "gather":
        n = ins[1].type.ndim  # type: ignore[union-attr]
        anywhere = tuple(Index(-1, 0, -1) for _ in ins[0].type.shape)
        return [(ins[0], anywhere), *((i, access[:n]) for i in ins[1:])]
    if name == "sum" and is_short_sum(eqn):
        n = ins[0].type.shape[-1]
        return [(ins[0], (*access, Index(-1, 0, k))) for k in range(n)]
    if name in PATCHES or is_opaque(eqn):
        return [(x, (zero,) * len(x.type.shape)) for x in ins]
    return [(x, access[: len(x.type.shape)]) for x in ins]
