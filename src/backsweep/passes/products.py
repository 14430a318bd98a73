"""A product that a stencil reads is computed where its cotangent is, one step early.

The adjoint of `c2 * laplacian(u)` reads w = c2 u_bar at many offsets, so w is stored: one
kernel computes it, threads meet, a second kernel reads it. Here w is carried from step to step
like a cotangent: the kernel that computes u_bar computes the next step's w as well, and one
kernel is left. Patches of u_bar (records) are followed by the same elements of w, computed again.
Each value of w is computed by the same expression as before: no bit changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backsweep.comm.boxes import Box, box_shape
from backsweep.ir import ArrayType, Atom, Builder, Equation, Literal, Program, Var
from backsweep.passes.delay import PATCHES
from backsweep.passes.simplify import communicates, simplify
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as ga
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh

MAX_PRODUCTS = 8
"""Each one takes an array more."""


@dataclass(frozen=True)
class Product:
    """What is computed element by element from a region of one cotangent.

    Attributes
    ----------
    bar : int
    region : Box
        Of the cotangent.
    on : callable
        Extents -> the program (consts, cotangent) -> product, for a part of the region.
    """

    bar: int
    region: Box
    on: Callable[[tuple[int, ...]], Program]

    def writer(
        self, consts: Sequence[Any], box: Box, bar: np.ndarray, product: np.ndarray
    ) -> Callable[[], None]:
        """What writes the part of a product that belongs to a box of its cotangent.

        Parameters
        ----------
        consts : sequence of array_like
        box : Box
        bar, product : ndarray
            Both whole; always read and written where they lie now.
        """
        part = tuple(
            (max(a, lo), max(a, lo, min(b, hi)))
            for (a, b), (lo, hi) in zip(box, self.region, strict=True)
        )
        within = tuple(
            slice(a - lo, b - lo) for (a, b), (lo, _) in zip(part, self.region, strict=True)
        )
        shape, program = box_shape(self.region), self.on(box_shape(part))
        values: dict[Atom, Any] = {
            v: c[within] if np.shape(c) == shape else c
            for v, c in zip(program.inputs, consts, strict=False)
        }
        values[program.inputs[-1]] = bar[tuple(slice(a, b) for a, b in part)]
        return prepared(program, values, product[within])


def prepared(program: Program, values: dict[Atom, Any], out: np.ndarray) -> Callable[[], None]:
    """Writes the result of a program of elementwise equations, with little work at each call."""
    *first, last = [
        (e.outputs[0], partial(e.primitive.evaluate, e.params), e.inputs) for e in program.equations
    ]
    assert program.outputs == (last[0],)

    def value(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Literal) else values[atom]

    def write() -> None:
        with np.errstate(all="ignore"):
            for var, run, inputs in first:
                values[var] = run(*map(value, inputs))
            out[...] = last[1](*map(value, last[2]))

    return write


@dataclass(frozen=True)
class _Found:
    """A product w of a region of s, which is bar `bar` after its patches."""

    w: Var
    bar: int
    s: Var
    patches: tuple[Equation, ...]
    region: Equation | None
    """The slice of s that w reads; None: all of it."""

    @property
    def starts(self) -> tuple[int, ...]:
        if self.region is None:
            return (0,) * len(_shape(self.w))
        return tuple(self.region.params["starts"])

    @property
    def span(self) -> Box:
        """Of the cotangent."""
        return tuple((a, a + n) for a, n in zip(self.starts, _shape(self.w), strict=True))


def _shape(atom: Atom) -> tuple[int, ...]:
    assert isinstance(atom.type, ArrayType)
    return atom.type.shape


def carry_products(
    program: Program, n_consts: int, bars: Sequence[Var], heads: Sequence[int], first_out: int
) -> tuple[Program, tuple[Product, ...]]:
    """Carry what can be: products become inputs after the bars and outputs after theirs.

    Parameters
    ----------
    program : Program
        A reverse step; its first `n_consts` inputs are constant.
    bars : sequence of Var
        Its inputs that are cotangents of the carry.
    heads : sequence of int
        The bars that outputs `first_out ...` are new values of.
    """
    search = _Search(program, set(program.inputs[:n_consts]), list(bars))
    found = [f for f in search.products() if f.bar in heads][:MAX_PRODUCTS]
    if not found:
        return program, ()
    after = program.inputs.index(bars[-1]) + 1
    carried = {f.w: Var(f.w.type, f.w.name) for f in found}
    b = Builder()
    b.inputs = [*program.inputs[:after], *carried.values(), *program.inputs[after:]]
    env: dict[Atom, Atom] = {f.w: carried[f.w] for f in found if not f.patches}
    for eqn in program.equations:
        b.equations.append(eqn.replace_inputs(tuple(env.get(a, a) for a in eqn.inputs)))
        for f in found:
            if f.patches and eqn is f.patches[-1]:
                env[f.w] = _patched(b, search, f, carried[f.w])
    new = []
    for f in found:
        out = program.outputs[first_out + list(heads).index(f.bar)]
        new.append(search.replay(b, f.w, _of_region(b, f, out), lambda c: c))
    split = first_out + len(heads)
    old = [env.get(a, a) for a in program.outputs]
    built = b.build([*old[:split], *new, *old[split:]], program.name)
    consts = program.inputs[:n_consts]
    products = tuple(Product(f.bar, f.span, partial(_part, search, f, consts)) for f in found)
    return _sums_last(simplify(built), first_out), products


class _Search:
    """Finds products, and computes them again elsewhere."""

    def __init__(self, program: Program, consts: set[Var], bars: list[Var]) -> None:
        self.program, self.consts, self.bars = program, consts, bars
        self.definitions = {v: e for e in program.equations for v in e.outputs}

    def products(self) -> list[_Found]:
        pads = Counter(e.inputs[0] for e in self.program.equations if e.primitive is ix.pad)
        found = [self._product(v) for v, n in pads.items() if n > 1 and isinstance(v, Var)]
        return [f for f in found if f is not None]

    def _product(self, w: Var) -> _Found | None:
        if w in self.program.outputs or w not in self.definitions:
            return None
        leaves = self._leaves(w, _shape(w))
        if leaves is None or len(leaves) != 1 or w in leaves:
            return None
        leaf = leaves.pop()
        region = self.definitions.get(leaf)
        if region is None or region.primitive is not ix.slice_:
            region, s = None, leaf
        else:
            inner = region.inputs[0]
            if not isinstance(inner, Var) or any(k != 1 for k in region.params["steps"]):
                return None
            s = inner
        patches: list[Equation] = []
        var = s
        while var not in self.bars:
            eqn = self.definitions.get(var)
            if eqn is None or eqn.primitive not in PATCHES or not isinstance(eqn.inputs[0], Var):
                return None
            if len(eqn.inputs) - 2 != len(_shape(s)):
                return None
            patches.insert(0, eqn)
            var = eqn.inputs[0]
        return _Found(w, self.bars.index(var), s, tuple(patches), region)

    def _leaves(self, atom: Atom, shape: tuple[int, ...]) -> set[Var] | None:
        """What an elementwise expression is made of besides constants; None if not elementwise."""
        if isinstance(atom, Literal):
            return set()
        if atom in self.consts:
            return set() if _shape(atom) in (shape, ()) else None
        eqn = self.definitions.get(atom)
        if eqn is None or eqn.primitive in PATCHES or eqn.primitive is ix.slice_:
            return {atom} if _shape(atom) == shape else None
        if eqn.primitive is sh.broadcast:
            x = eqn.inputs[0]
            return (
                set() if _shape(x) == () and (isinstance(x, Literal) or x in self.consts) else None
            )
        if eqn.primitive.kind != "elementwise":
            return None
        result: set[Var] = set()
        for a in eqn.inputs:
            below = self._leaves(a, shape)
            if below is None:
                return None
            result |= below
        return result

    def replay(self, b: Builder, w: Var, value: Atom, const: Callable[[Var], Atom]) -> Atom:
        """w computed again from the value of its region (or of points of it)."""
        done: dict[Atom, Atom] = {}

        def again(atom: Atom) -> Atom:
            if isinstance(atom, Literal):
                return atom
            if atom not in done:
                done[atom] = const(atom) if atom in self.consts else compute(atom)
            return done[atom]

        def compute(var: Var) -> Atom:
            eqn = self.definitions.get(var)
            if eqn is None or eqn.primitive in PATCHES or eqn.primitive is ix.slice_:
                return value
            inputs = tuple(again(a) for a in eqn.inputs)
            if eqn.primitive is sh.broadcast:
                return b(sh.broadcast, *inputs, shape=_shape(value), dims=())
            return b(eqn.primitive, *inputs, **eqn.params)

        return again(w)


def _of_region(b: Builder, f: _Found, bar: Atom) -> Atom:
    return bar if f.region is None else b(ix.slice_, bar, **f.region.params)


def _patched(b: Builder, search: _Search, f: _Found, w: Atom) -> Atom:
    """w where s was patched, computed again.

    An index outside the region is moved to its edge: that element is computed again too.
    """
    for patch in f.patches:
        inside = [
            _clipped(b, i, start, n)
            for i, start, n in zip(patch.inputs[2:], f.starts, _shape(f.w), strict=True)
        ]
        own = [
            b(ew.sub, i, _int(start)) if start else i
            for i, start in zip(inside, f.starts, strict=True)
        ]
        gathered = b(ga.gather, f.s, *inside, unique=False)

        def at_points(const: Var, own: list[Atom] = own) -> Atom:
            return const if _shape(const) == () else b(ga.gather, const, *own, unique=False)

        w = b(ga.scatter, w, search.replay(b, f.w, gathered, at_points), *own, unique=False)
    return w


def _int(value: int) -> Literal:
    return Literal(value, ArrayType((), np.dtype(np.int64)))


def _clipped(b: Builder, index: Atom, start: int, n: int) -> Atom:
    low = b(ew.select, b(ew.lt, index, _int(start)), _int(start), index)
    high = _int(start + n - 1)
    return b(ew.select, b(ew.gt, low, high), high, low)


def _part(search: _Search, f: _Found, consts: Sequence[Var], extents: tuple[int, ...]) -> Program:
    """A part of w from the same part of its region; constants of its shape are cut as well."""
    b = Builder()
    own = {v: b.input(_cut(v, _shape(f.w), extents), v.name) for v in consts}
    bar = b.input(f.s.type.with_shape(extents), "bar")  # type: ignore[union-attr]
    return b.build([search.replay(b, f.w, bar, own.__getitem__)], "product")


def _cut(const: Var, shape: tuple[int, ...], extents: tuple[int, ...]) -> Any:
    is_cut = isinstance(const.type, ArrayType) and const.type.shape == shape
    return const.type.with_shape(extents) if is_cut else const.type  # type: ignore[union-attr]


def _sums_last(program: Program, n_sums: int) -> Program:
    """Gradients that are added up come last: they join the kernel of the new cotangents.

    Collectives stay in their order, with all that they are made of.
    """
    needed = {a for a in program.outputs[n_sums:] if isinstance(a, Var)}
    first: list[Equation] = []
    for eqn in reversed(program.equations):
        if any(v in needed for v in eqn.outputs) or communicates(eqn):
            first.append(eqn)
            needed.update(a for a in eqn.inputs if isinstance(a, Var))
    early = set(map(id, first))
    rest = [e for e in program.equations if id(e) not in early]
    equations = (*reversed(first), *rest)
    return Program(program.inputs, equations, program.outputs, program.name)
