"""A scan inside a step: a phase of the step that is itself a loop over lowered steps.

Before lowering (`runtime.inner`), a scan becomes one of two equations that hold an
`InnerScan`, all of whose operands and results are plain arrays:

    inner_scan    (consts, init, xs) -> (carry, ys, trajectories)
    inner_reverse (trajectories, consts, xs, bars, y_bars) -> (const_bars, bars, x_bars)

A trajectory holds every state of one chain of carry components: at inner step n the
component of depth d of a chain of length L lies at position n + L - 1 - d, as in the sweep of
the outer scan. Everything that the loop needs besides (rings, wide accumulators, the work
buffers of its step) is work memory of the outer step.

All threads run the loop. Suboptimal: a state that is read through several pads is copied in
each inner step; cotangents are never handed on; a first bar is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.margins import Ring
from backsweep.errors import ProgramError
from backsweep.ir import ArrayType, Equation, Primitive, Program

if TYPE_CHECKING:
    from backsweep.codegen.step import LoweredStep


@dataclass(frozen=True)
class InnerScan:
    """A loop over a step in canonical form.

    Attributes
    ----------
    program : Program
        Forward: consts, carry, xs -> heads of chains, ys. Reverse: consts, carry, xs, bars,
        y_bars -> const_bars, bars, x_bars.
    length, n_consts, n_carry, n_xs : int
    chains : tuple of tuple of int
        Carry components from the computed one down to the oldest copy of it.
    keeps : bool
        Forward: whether the states are kept in trajectories.
    finals : tuple of int
        Forward: the carry components whose last value somebody reads.
    n_const_bars, n_bars : int
        Reverse: how many constants and carry components have a cotangent.
    """

    program: Program
    length: int
    n_consts: int
    n_carry: int
    n_xs: int
    chains: tuple[tuple[int, ...], ...]
    keeps: bool = False
    finals: tuple[int, ...] = ()
    n_const_bars: int = 0
    n_bars: int = 0

    def accumulated(self, primitive: Primitive) -> list[bool]:
        """Which outputs of the inner step are added up over its steps."""
        n = self.n_const_bars if primitive is inner_reverse else 0
        return [k < n for k in range(len(self.program.outputs))]

    def rings(self, primitive: Primitive) -> list[Ring]:
        """Reverse: a cotangent and its new value share a ring, and its margins."""
        first = self.n_consts + self.n_carry + self.n_xs
        n_bars = self.n_bars if primitive is inner_reverse else 0
        return [Ring((first + k,), self.n_const_bars + k) for k in range(n_bars)]


def _not_evaluated(p: Any, *args: Any) -> Any:
    raise ProgramError("an inner scan is lowered, its program is what is evaluated")


inner_scan, inner_reverse = (
    Primitive(name, "control", lambda p, *types: p["out_types"], _not_evaluated)
    for name in ("inner_scan", "inner_reverse")
)


def positions(value: ArrayType | Buffer, count: int) -> ArrayType:
    """Memory for several values: each begins at a multiple of 64 bytes."""
    n_bytes = max(1, -(-value.nbytes // 64)) * 64
    return ArrayType((count, n_bytes // value.dtype.itemsize), value.dtype)


@dataclass
class LoweredScan:
    """A phase that all threads run.

    Attributes
    ----------
    work : dict
        Buffers of the outer step, by number of the work buffer of the inner one.
    rings : list of Buffer
        Forward without trajectories: the last states of each chain. Reverse: the last two
        cotangents of each carry component.
    totals : dict
        Sums in float64 of narrower cotangents, by number of the inner output.
    """

    equation: Equation
    scan: InnerScan
    inner: LoweredStep
    operands: list[Buffer]
    results: list[Buffer]
    name: str
    work: dict[int, Buffer] = field(default_factory=dict)
    rings: list[Buffer] = field(default_factory=list)
    totals: dict[int, Buffer] = field(default_factory=dict)

    @property
    def is_reverse(self) -> bool:
        return self.equation.primitive is inner_reverse

    def allocate(self, new: Callable[..., Buffer]) -> None:
        """Take the memory that only this phase uses: `new(name, shape, dtype)`."""
        scan, inner = self.scan, self.inner
        for b in inner.work:
            own = new(b.name, (b.n_elements,), b.dtype)
            self.work[b.number] = replace(b, number=own.number, name=own.name)
        heads = [c[0] + scan.n_consts for c in scan.chains]
        slots = [len(c) + 1 for c in scan.chains]
        if self.is_reverse:
            first = scan.n_consts + scan.n_carry + scan.n_xs
            heads = [first + k for k in range(scan.n_bars)]
            slots = [2] * scan.n_bars
        for head, n in zip(heads if not scan.keeps else [], slots, strict=False):
            one = inner.inputs[head]
            self.rings.append(new("ring", positions(one, n).shape, one.dtype))
        for k, result in enumerate(self.results[: scan.n_const_bars]):
            wide = inner.outputs[k]
            if wide.dtype != result.dtype:
                self.totals[k] = new("total", wide.shape, wide.dtype)

    def numbers(self) -> list[int]:
        """The buffers that the phase takes, in order."""
        own = [*self.work.values(), *self.rings, *self.totals.values()]
        return sorted({b.number for b in (*self.operands, *self.results, *own)})
