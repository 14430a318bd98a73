"""One kernel: boxes of scalar statements, made from the roots of a phase."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.expand import Expander, Split
from backsweep.codegen.graph import Address, Graph, Value
from backsweep.codegen.group import KernelPhase, Root
from backsweep.codegen.plan import Analysis
from backsweep.ir import Var
from backsweep.primitives.access import Access, Box, Index, identity
from backsweep.primitives.ops import cost_of
from backsweep.primitives.shape import BLOCK

MAX_COST_TWICE = 6
"""Operations that two loops over one row may have in common."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Store, add, or hand to a block sum: one root inside one box."""

    root: Root
    nodes: tuple[int, ...]
    """One node, or real and imaginary part."""
    addresses: tuple[Address, ...]
    """Where it is stored."""


@dataclass
class BoxCode:
    """What is computed in one box of the loops."""

    box: Box
    graph: Graph
    statements: list[Statement]
    follows: tuple[int, int] | None = None
    """Rows of the boxes that this one follows, row by row: it reads what they stored."""

    @property
    def rows(self) -> tuple[int, int]:
        """The row loop that this box stands in."""
        return self.follows or self.box[0]


@dataclass
class Kernel:
    """A loop nest over boxes.

    Attributes
    ----------
    domain : tuple of int
        Extents of the loops; for sums the last one is the summed extent.
    is_sum : bool
        The innermost loop is a sum over the last extent.
    """

    domain: tuple[int, ...]
    boxes: list[BoxCode]
    is_sum: bool

    @property
    def sums(self) -> list[Root]:
        """The roots that are block sums, in order."""
        seen = {s.root.var: s.root for b in self.boxes for s in b.statements}
        return [r for r in seen.values() if r.kind in ("sum", "sum_all")]


class NeedsStorage(Exception):
    """A value must be stored before this kernel can be made."""

    def __init__(self, var: Var) -> None:
        super().__init__(var)
        self.var = var


def make_kernel(
    phase: KernelPhase,
    analysis: Analysis,
    buffers: Mapping[Var, Buffer],
    accumulated: frozenset[Var],
) -> Kernel:
    """The boxes of a phase."""
    n_dims = len(phase.roots[0].domain)
    lows = [min(r.origin[d] for r in phase.roots) for d in range(n_dims)]
    highs = [max(r.origin[d] + r.domain[d] for r in phase.roots) for d in range(n_dims)]
    shift = tuple(-lo for lo in lows)
    domain = tuple(hi - lo for lo, hi in zip(lows, highs, strict=True))
    maker = _BoxMaker(analysis, buffers, accumulated, shift)
    first, second = _stages(phase, analysis, buffers, domain, shift)
    local, inner = {r.var for r in phase.roots}, tuple((0, n) for n in domain[1:])
    rows: list[tuple[int, int]] = []
    cuts = [(0, domain[0])]
    while cuts != rows:
        rows = cuts
        boxes = maker.boxes(first, [(r, *inner) for r in rows], local)
        cuts = _row_ranges(boxes, domain[0]) if second else rows
    for r in rows if second else ():
        for box in maker.boxes(second, [(r, *inner)], {root.var for root in second}):
            box.follows = r
            boxes.append(box)
    kernel = Kernel(domain, boxes, phase.is_sum)
    return _check_sums(_flattened(kernel, buffers), analysis)


def _row_ranges(boxes: list[BoxCode], n_rows: int) -> list[tuple[int, int]]:
    """Disjoint ranges that make up all rows, none of which a box covers partly."""
    cuts = sorted({0, n_rows, *(cut for b in boxes for cut in b.box[0])})
    return list(itertools.pairwise(cuts))


def _stages(
    phase: KernelPhase,
    analysis: Analysis,
    buffers: Mapping[Var, Buffer],
    domain: tuple[int, ...],
    shift: tuple[int, ...],
) -> tuple[list[Root], list[Root]]:
    """Roots that span whole rows, and narrower ones that follow them row by row.

    In one loop the narrower ones would cut every row into a long part and two short ones,
    which are not vectorised. They read what was stored, so nothing that they still need
    may have been stored over; and what both need is computed twice, so it must be cheap.
    """
    roots = phase.roots
    if len(domain) < 2 or any(r.kind != "store" for r in roots):
        return roots, []
    whole = [r for r in roots if (r.origin[-1] + shift[-1], r.domain[-1]) == (0, domain[-1])]
    narrow = [r for r in roots if r not in whole]
    stored, follow = {r.var for r in whole}, {r.var for r in narrow}
    lost = {buffers[v].number for v in stored}
    first = [analysis.usage(r.var) for r in whole]
    second = [analysis.usage(r.var) for r in narrow]
    if any(v in follow for usage in first for v, _ in usage.loads):
        return roots, []
    if any(buffers[v].number in lost for u in second for v, _ in u.loads if v not in stored):
        return roots, []
    twice = {v for u in first for v in u.inlined} & {v for u in second for v in u.inlined}
    if sum(cost_of(analysis.definitions[v].primitive.name) for v in twice) > MAX_COST_TWICE:
        return roots, []
    return (whole, narrow) if whole else (roots, [])


@dataclass
class _BoxMaker:
    """Expands roots, cutting the loops into boxes where they ask for it."""

    analysis: Analysis
    buffers: Mapping[Var, Buffer]
    accumulated: frozenset[Var]
    shift: tuple[int, ...]

    def boxes(self, roots: list[Root], pending: list[Box], local: set[Var]) -> list[BoxCode]:
        """The boxes in order of their places; `local` values are computed, not loaded."""
        definitions, n_dims = self.analysis.definitions, len(self.shift)
        made: list[BoxCode] = []
        while pending:
            box = pending.pop()
            if any(lo >= hi for lo, hi in box):
                continue
            e = Expander(definitions, self.buffers, Graph(), box, frozenset(local), n_dims)
            try:
                found = [
                    _statement(e, r, self.shift, self.analysis, self.buffers, self.accumulated)
                    for r in roots
                ]
            except Split as split:
                lo, hi = box[split.dim]
                for part in ((split.cut, hi), (lo, split.cut)):
                    pending.append((*box[: split.dim], part, *box[split.dim + 1 :]))
                continue
            statements = [s for s in found if s]
            if statements:
                made.append(BoxCode(box, e.graph, statements))
        return sorted(made, key=lambda b: b.box)


def _statement(
    e: Expander,
    root: Root,
    shift: tuple[int, ...],
    analysis: Analysis,
    buffers: Mapping[Var, Buffer],
    accumulated: frozenset[Var],
) -> Statement | None:
    origin = tuple(o + s for o, s in zip(root.origin, shift, strict=True))
    for d, (lo, hi) in enumerate(e.box):
        first, last = origin[d], origin[d] + root.domain[d]
        if hi <= first or lo >= last:
            return None
        for cut in (first, last):
            if lo < cut < hi:
                raise Split(d, cut)
    access = identity(root.domain, origin)
    eqn = analysis.definitions[root.var]
    if root.kind in ("sum", "sum_all"):
        own = access[: root.var.type.ndim]  # type: ignore[union-attr]
        where = _addresses(e, buffers[root.var], own)
        return Statement(root, _parts(e.value(eqn.inputs[0], access)), where)
    if root.kind == "strided":
        value = e.value(eqn.inputs[0], access)
        pairs = zip(access, eqn.params["steps"], eqn.params["starts"], strict=True)
        target: Access = tuple(Index(i.dim, step, i.constant * step + s) for i, step, s in pairs)
    else:
        own = access[: root.var.type.ndim]  # type: ignore[union-attr]
        value, target = e.value(root.var, own), own
    nodes = _parts(value)
    if root.var in accumulated and all(e.graph.is_literal(n, 0) for n in nodes):
        return None
    return Statement(root, nodes, _addresses(e, buffers[root.var], target))


def _parts(value: Value) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _addresses(e: Expander, buffer: Buffer, access: Access) -> tuple[Address, ...]:
    coefficients, constant = e._address(buffer, access)
    if buffer.dtype.kind != "c":
        return (Address(buffer.number, tuple(coefficients), constant),)
    doubled = tuple(2 * c for c in coefficients)
    return tuple(Address(buffer.number, doubled, 2 * constant + k) for k in (0, 1))


def _check_sums(kernel: Kernel, analysis: Analysis) -> Kernel:
    """Block sums over everything need one box of whole blocks; else the operand is stored."""
    for root in kernel.sums:
        one_box = len(kernel.boxes) == 1
        operand = analysis.definitions[root.var].inputs[0]
        assert isinstance(operand, Var)
        if root.kind == "sum_all":
            whole = len(kernel.domain) == 1 or kernel.domain[-1] % BLOCK == 0
            if not (one_box and whole):
                raise NeedsStorage(operand)
        elif not one_box:
            raise NeedsStorage(operand)
    return kernel


def _flattened(kernel: Kernel, buffers: Mapping[Var, Buffer]) -> Kernel:
    """A kernel whose every address runs through memory without gaps becomes one long loop."""
    n = len(kernel.domain)
    if n < 2 or len(kernel.boxes) != 1 or kernel.is_sum:
        return kernel
    only = kernel.boxes[0]
    if only.box != tuple((0, extent) for extent in kernel.domain):
        return kernel
    strides = [1] * n
    for k in range(n - 2, -1, -1):
        strides[k] = strides[k + 1] * kernel.domain[k + 1]

    def is_flat(address: Address) -> bool:
        c = address.coefficients
        return not any(c) or all(a == c[-1] * s for a, s in zip(c, strides, strict=True))

    addresses = [a for s in only.statements for a in s.addresses if s.root.kind != "sum_all"]
    for node in only.graph.nodes:
        if node.op == "load":
            addresses.append(node.data)
        elif node.op in ("gather", "index"):
            return kernel
    if not all(is_flat(a) for a in addresses):
        return kernel
    size = int(np.prod(kernel.domain))
    return Kernel((size,), [_flat_box(only, size)], False)


def _flat_box(box: BoxCode, size: int) -> BoxCode:
    def flat(a: Address) -> Address:
        return Address(a.buffer, (a.coefficients[-1],), a.constant)

    graph = Graph()
    renumbered: list[int] = []
    for node in box.graph.nodes:
        args = tuple(renumbered[a] for a in node.args)
        data = flat(node.data) if node.op == "load" else node.data
        depends = data.depends() if node.op == "load" else frozenset()
        renumbered.append(graph._add(node.op, args, node.dtype, data, depends))
    statements = [
        Statement(
            s.root, tuple(renumbered[n] for n in s.nodes), tuple(flat(a) for a in s.addresses)
        )
        for s in box.statements
    ]
    return BoxCode(((0, size),), graph, statements)
