"""Expands a value at given indices into scalar nodes ("pull").

An index of a value is affine in one loop dimension; slices, broadcasts, pads and updates
only change the index. Where a pad, an update or a concatenation is covered partly by the
current box, `Split` says where the box must be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.graph import Address, Graph, ScalarOps, Value
from backsweep.ir import ArrayType, Atom, Equation, Literal, Var
from backsweep.primitives import ops
from backsweep.primitives.access import (
    UNROLLED_SUM,
    ZERO_INDEX,
    Access,
    Box,
    Index,
    only_ones_differ,
)


class Split(Exception):
    """The box must be cut before `cut` along `dim`."""

    def __init__(self, dim: int, cut: int) -> None:
        super().__init__(dim, cut)
        self.dim, self.cut = dim, cut


class NotFusable(Exception):
    """A value must be stored before it can be read in this way."""

    def __init__(self, var: Var) -> None:
        super().__init__(var)
        self.var = var


def inside(index: Index, start: int, size: int, box: Box) -> bool:
    """Whether an index stays in [start, start + size): all or nothing, else Split."""
    lo, hi = index.over(box)
    if lo >= start and hi < start + size:
        return True
    if hi < start or lo >= start + size:
        return False
    b_lo, b_hi = box[index.dim]
    for bound in (start, start + size):
        if index.stride > 0:
            cut = -((index.constant - bound) // index.stride)
        else:
            cut = _first_below(index, bound, b_lo, b_hi)
        if b_lo < cut < b_hi:
            raise Split(index.dim, cut)
    raise AssertionError("a partly covered box has a cut")


def _first_below(index: Index, bound: int, lo: int, hi: int) -> int:
    """The first loop index at which a falling index is below the bound."""
    while lo < hi:
        middle = (lo + hi) // 2
        if index.stride * middle + index.constant < bound:
            hi = middle
        else:
            lo = middle + 1
    return lo


@dataclass
class Expander:
    """Expands values of one program inside one box of one kernel."""

    definitions: Mapping[Var, Equation]
    buffers: Mapping[Var, Buffer]
    graph: Graph
    box: Box
    local: frozenset[Var]
    """Materialised values that this kernel computes itself, at identity."""
    n_dims: int
    _memo: dict[Any, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ops = ScalarOps(self.graph)

    def value(self, atom: Atom, access: Access) -> Value:
        """The node(s) of a value at an index."""
        if isinstance(atom, Literal):
            return self._literal(atom)
        key = (atom, access)
        if key not in self._memo:
            if atom in self.buffers and atom not in self.local:
                self._memo[key] = self._load(self.buffers[atom], access)
            else:
                self._memo[key] = self._expand(atom, access)
        return self._memo[key]

    def _literal(self, atom: Literal) -> Value:
        dtype = atom.type.dtype
        if dtype.kind == "c":
            part = np.dtype(f"f{dtype.itemsize // 2}")
            return self.graph.literal(atom.value.real, part), self.graph.literal(
                atom.value.imag, part
            )
        return self.graph.literal(atom.value, dtype)

    def _address(self, buffer: Buffer, access: Access) -> tuple[list[int], int]:
        coefficients = [0] * self.n_dims
        constant = buffer.offset
        for index, stride in zip(access, buffer.strides, strict=True):
            constant += index.constant * stride
            if index.dim >= 0:
                coefficients[index.dim] += index.stride * stride
        return coefficients, constant

    def _load(self, buffer: Buffer, access: Access) -> Value:
        coefficients, constant = self._address(buffer, access)
        return self._at(buffer, coefficients, constant, self.graph.load)

    def _at(self, buffer: Buffer, coefficients: list[int], constant: int, load: Any) -> Value:
        if buffer.dtype.kind != "c":
            return load(Address(buffer.number, tuple(coefficients), constant), buffer.dtype)
        part = np.dtype(f"f{buffer.dtype.itemsize // 2}")
        doubled = tuple(2 * c for c in coefficients)
        return (
            load(Address(buffer.number, doubled, 2 * constant), part),
            load(Address(buffer.number, doubled, 2 * constant + 1), part),
        )

    def _expand(self, var: Var, access: Access) -> Value:
        eqn = self.definitions[var]
        rule = _RULES.get(eqn.primitive.name)
        if rule is not None:
            return rule(self, eqn, access)
        if eqn.primitive.kind == "elementwise":
            return self._elementwise(eqn, [self.value(a, access) for a in eqn.inputs])
        raise NotFusable(var)

    def _elementwise(self, eqn: Equation, args: list[Value]) -> Value:
        name, primitive = eqn.primitive.name, eqn.primitive
        if any(isinstance(a, tuple) for a in args) or name == "complex":
            return ops.COMPLEX[name](self.ops, *args)
        if primitive.expand is not None:
            return primitive.expand(self.ops, eqn.params, *args)
        return self.graph.op(name, *args)  # type: ignore[arg-type]

    def zero(self, type: ArrayType) -> Value:
        return self._literal(Literal(0, ArrayType((), type.dtype)))


# --------------------------------------------------------------------------- rules


def _cast(e: Expander, eqn: Equation, access: Access) -> Value:
    dtype = eqn.params["dtype"]
    value = e.value(eqn.inputs[0], access)
    if dtype.kind != "c":
        assert not isinstance(value, tuple)
        return e.graph.cast(dtype, value)
    part = np.dtype(f"f{dtype.itemsize // 2}")
    if isinstance(value, tuple):
        return e.graph.cast(part, value[0]), e.graph.cast(part, value[1])
    return e.graph.cast(part, value), e.graph.literal(0, part)


def _slice(e: Expander, eqn: Equation, access: Access) -> Value:
    p = eqn.params
    moved = tuple(
        Index(i.dim, i.stride * step, i.constant * step + start)
        for i, start, step in zip(access, p["starts"], p["steps"], strict=True)
    )
    return e.value(eqn.inputs[0], moved)


def _pad(e: Expander, eqn: Equation, access: Access) -> Value:
    p, inner = eqn.params, eqn.inputs[0]
    moved = _into_region(e, eqn.outputs[0], access, p["starts"], p["steps"])
    if moved is None:
        return e.zero(eqn.outputs[0].type)  # type: ignore[arg-type]
    buffer = e.buffers.get(inner) if isinstance(inner, Var) and inner not in e.local else None
    covered = True
    for k, (index, extent) in enumerate(zip(moved, inner.type.shape, strict=True)):
        below, above = buffer.margins[k] if buffer is not None else (0, 0)
        lo, hi = index.over(e.box)
        if lo >= -below and hi < extent + above:
            continue
        covered = inside(index, 0, extent, e.box) and covered
    if not covered:
        return e.zero(eqn.outputs[0].type)  # type: ignore[arg-type]
    return e.value(inner, moved)


def _into_region(e: Expander, var: Var, access: Access, starts: Any, steps: Any) -> Access | None:
    """Indices inside a region; None where a stride never meets it."""
    moved = []
    for index, start, step in zip(access, starts, steps, strict=True):
        offset = index.constant - start
        if index.dim < 0:
            if offset % step:
                return None
            moved.append(Index(-1, 0, offset // step))
        elif index.stride % step:
            raise NotFusable(var)
        elif offset % step:
            return None
        else:
            moved.append(Index(index.dim, index.stride // step, offset // step))
    return tuple(moved)


def _update(e: Expander, eqn: Equation, access: Access) -> Value:
    (base, value), p = eqn.inputs, eqn.params
    moved = _into_region(e, eqn.outputs[0], access, p["starts"], p["steps"])
    if moved is None:
        return e.value(base, access)
    for index, extent in zip(moved, value.type.shape, strict=True):
        if not inside(index, 0, extent, e.box):
            return e.value(base, access)
    return e.value(value, moved)


def _concatenate(e: Expander, eqn: Equation, access: Access) -> Value:
    axis, start = eqn.params["axis"], 0
    for x in eqn.inputs:
        extent = x.type.shape[axis]
        if extent and inside(access[axis], start, extent, e.box):
            moved = (*access[:axis], access[axis].shifted(-start), *access[axis + 1 :])
            return e.value(x, moved)
        start += extent
    raise AssertionError("an index lies in one of the parts")


def _broadcast(e: Expander, eqn: Equation, access: Access) -> Value:
    x, p = eqn.inputs[0], eqn.params
    if isinstance(x, Literal):
        return e.value(x, ())
    moved = tuple(
        access[d] if n == p["shape"][d] else ZERO_INDEX
        for n, d in zip(x.type.shape, p["dims"], strict=True)
    )
    return e.value(x, moved)


def _transpose(e: Expander, eqn: Equation, access: Access) -> Value:
    moved: list[Index] = [ZERO_INDEX] * len(access)
    for k, axis in enumerate(eqn.params["axes"]):
        moved[axis] = access[k]
    return e.value(eqn.inputs[0], tuple(moved))


def _reshape(e: Expander, eqn: Equation, access: Access) -> Value:
    x, out = eqn.inputs[0], eqn.outputs[0]
    if not only_ones_differ(x.type.shape, out.type.shape):
        raise NotFusable(out)
    used = iter(i for i, n in zip(access, out.type.shape, strict=True) if n != 1)
    moved = tuple(next(used) if n != 1 else ZERO_INDEX for n in x.type.shape)
    return e.value(x, moved)


def _iota(e: Expander, eqn: Equation, access: Access) -> Value:
    index, dtype = access[eqn.params["axis"]], eqn.params["dtype"]
    if index.dim < 0:
        return e.graph.literal(index.constant, dtype)
    node = e.graph.index(index.dim, index.stride, index.constant)
    return e.graph.cast(dtype, node)


def _sum(e: Expander, eqn: Equation, access: Access) -> Value:
    """Short sums in the lane order of the primitive: a tree of halves."""
    x, axes = eqn.inputs[0], eqn.params["axes"]
    n = x.type.shape[-1] if x.type.ndim else 0  # type: ignore[union-attr]
    if axes != (x.type.ndim - 1,) or not 0 < n <= UNROLLED_SUM:  # type: ignore[union-attr]
        raise NotFusable(eqn.outputs[0])
    terms = [e.value(x, (*access, Index(-1, 0, k))) for k in range(n)]
    width = 1
    while width < n:
        width *= 2
    while width > 1:
        width //= 2
        terms = [
            _plus(e, terms[k], terms[k + width]) if k + width < len(terms) else terms[k]
            for k in range(min(width, len(terms)))
        ]
    return terms[0]


def _plus(e: Expander, x: Value, y: Value) -> Value:
    if isinstance(x, tuple) and isinstance(y, tuple):
        return e.graph.op("add", x[0], y[0]), e.graph.op("add", x[1], y[1])
    return e.graph.op("add", x, y)  # type: ignore[arg-type]


def _gather(e: Expander, eqn: Equation, access: Access) -> Value:
    x, *indices = eqn.inputs
    if not isinstance(x, Var) or x not in e.buffers or x in e.local:
        raise NotFusable(x)  # type: ignore[arg-type]
    buffer = e.buffers[x]
    n_points = indices[0].type.ndim  # type: ignore[union-attr]
    at = []
    for i, stride in zip(indices, buffer.strides, strict=False):
        node = e.value(i, access[:n_points])
        at.append((node, stride * (2 if buffer.dtype.kind == "c" else 1)))
    rest = (*(ZERO_INDEX for _ in indices), *access[n_points:])
    coefficients, constant = e._address(buffer, rest)
    load: Callable[..., int] = lambda a, t: e.graph.gather(a, t, at)  # type: ignore  # noqa: E731
    return e._at(buffer, coefficients, constant, load)


_RULES: dict[str, Callable[[Expander, Equation, Access], Value]] = {
    "cast": _cast,
    "slice": _slice,
    "pad": _pad,
    "update": _update,
    "concatenate": _concatenate,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "iota": _iota,
    "sum": _sum,
    "gather": _gather,
    "stop_gradient": lambda e, eqn, access: e.value(eqn.inputs[0], access),
}
