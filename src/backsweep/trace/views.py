"""How a view reads its base and writes through to it.

Each kind of view knows `read` (base value -> view value), `write` (base value and new
view value -> new base value) and `embed`, the transpose of `read`, which makes
`view += y` the sum `base + embed(y)` (DESIGN 5: x + pad(y)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from backsweep.errors import MutationError
from backsweep.ir import ArrayType, Atom
from backsweep.ir.builder import scalar
from backsweep.primitives import elementwise as ew
from backsweep.primitives import gather as ga
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
from backsweep.trace.tracing import at_user_line


class View(Protocol):
    """A writable relation between a base value and a part of it."""

    def read(self, emit: Any, base: Atom) -> Atom: ...

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom: ...

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom: ...


@dataclass(frozen=True, slots=True)
class Region:
    """`base[start:stop:step, ...]`"""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]

    def read(self, emit: Any, base: Atom) -> Atom:
        return emit(ix.slice_, base, starts=self.starts, steps=self.steps, sizes=self.sizes)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        return emit(ix.update, base, value, starts=self.starts, steps=self.steps)

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        return emit(ix.pad, value, shape=base.shape, starts=self.starts, steps=self.steps)


@dataclass(frozen=True, slots=True)
class Reshaped:
    """The same elements in the same order in another shape."""

    shape: tuple[int, ...]

    def read(self, emit: Any, base: Atom) -> Atom:
        return emit(sh.reshape, base, shape=self.shape)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        return emit(sh.reshape, value, shape=base.type.shape)

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        return emit(sh.reshape, value, shape=base.shape)


@dataclass(frozen=True, slots=True)
class Transposed:
    axes: tuple[int, ...]

    def read(self, emit: Any, base: Atom) -> Atom:
        return emit(sh.transpose, base, axes=self.axes)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        inverse = tuple(int(k) for k in np.argsort(self.axes))
        return emit(sh.transpose, value, axes=inverse)

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        inverse = tuple(int(k) for k in np.argsort(self.axes))
        return emit(sh.transpose, value, axes=inverse)


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """`base[i, j]` with integers i, j, of which one at least is traced: a row that moves."""

    indices: tuple[Atom, ...]
    index: Any
    """What the user wrote, so that `u[i] += v` is recognised when it ends."""

    def read(self, emit: Any, base: Atom) -> Atom:
        return emit(ga.gather, base, *self.indices, unique=True)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        return emit(ga.scatter, base, value, *self.indices, unique=True)

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        zeros = emit(sh.broadcast, scalar(0, value), shape=base.shape, dims=())
        return self.add(emit, zeros, value)

    def add(self, emit: Any, base: Atom, value: Atom) -> Atom:
        return emit(ga.scatter_add, base, value, *self.indices, unique=True)


@dataclass(frozen=True, slots=True)
class Part:
    """The real or imaginary part of a complex base."""

    is_real: bool

    def read(self, emit: Any, base: Atom) -> Atom:
        return emit(ew.real if self.is_real else ew.imag, base)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        other = emit(ew.imag if self.is_real else ew.real, base)
        return emit(ew.complex_, value, other) if self.is_real else emit(ew.complex_, other, value)

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        zero = scalar(0, value)
        return emit(ew.complex_, value, zero) if self.is_real else emit(ew.complex_, zero, value)


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """The base broadcast to a shape, which NumPy does not let one write to."""

    shape: tuple[int, ...]

    def read(self, emit: Any, base: Atom) -> Atom:
        if base.type.shape == self.shape:
            return base
        dims = tuple(range(len(self.shape) - base.type.ndim, len(self.shape)))  # type: ignore[union-attr]
        return emit(sh.broadcast, base, shape=self.shape, dims=dims)

    def write(self, emit: Any, base: Atom, value: Atom) -> Atom:
        raise MutationError(
            "this view is read-only, as in NumPy (broadcast_to, diagonal, asarray of a plain "
            f"array): copy it first{at_user_line()}"
        )

    def embed(self, emit: Any, base: ArrayType, value: Atom) -> Atom:
        return self.write(emit, value, value)
