"""Source text of a sweep: a compiled function that executes a table of actions.

One call runs many steps without Python: states rotate by address, snapshots are slots of
an arena. All threads run the same function.

A carry component that is merely handed on (u becomes u_prev) forms a *chain* with the
component that it was: positions of a chain are kept once. At step n component `depth` of a
chain of length L lies at position n + L - 1 - depth, and the step writes position n + L;
positions are taken modulo the size of the ring, which is L + 1 (L where the new value may be
stored over the oldest one), or large enough for a whole trajectory. Cotangents run the other
way: at step n the one of depth d lies at position n + 1 + d and the step writes position n.

A sweep that *halts* looks at a flag after each step, its last record: where it is false, neither
the steps nor the rows that follow are executed, in this call and in all later ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.numba_source import Lines
from backsweep.codegen.step_source import StepSource
from backsweep.ir import Program, Var

ADVANCE, STORE, LOAD, DISCARD, REVERSE = range(5)


@dataclass(frozen=True, slots=True)
class Chain:
    """Carry components from the computed one down to the oldest copy of it."""

    components: tuple[int, ...]


def find_chains(step: Program, n_consts: int, n_carry: int) -> tuple[Chain, ...]:
    """Which components are handed on. Every component is in exactly one chain."""
    place = {v: k for k, v in enumerate(step.inputs[n_consts : n_consts + n_carry])}
    follower: dict[int, int] = {}
    is_handed_on: set[int] = set()
    for k, atom in enumerate(step.outputs[:n_carry]):
        source = place.get(atom) if isinstance(atom, Var) else None
        if source is not None and source not in follower and source != k:
            follower[source] = k
            is_handed_on.add(k)
    chains: list[Chain] = []
    covered: set[int] = set()
    for head in range(n_carry):
        if head in is_handed_on:
            continue
        members = [head]
        while members[-1] in follower:
            members.append(follower[members[-1]])
        chains.append(Chain(tuple(members)))
        covered.update(members)
    for k in range(n_carry):  # cycles have no head: their members are copied
        if k not in covered:
            chains.append(Chain((k,)))
    return tuple(sorted(chains, key=lambda c: c.components))


class AddressTable:
    """Named entries of the vector of addresses and sizes that a sweep gets."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """Source text that reads an entry."""
        return f"A[{self.names.setdefault(name, len(self.names))}]"


@dataclass
class SweepSource:
    """Text of a sweep module, and what the runtime must fill in."""

    text: str
    table: AddressTable
    advance: StepSource | None
    reverse: StepSource | None
    chains: tuple[Chain, ...]


@dataclass
class SweepWriter:
    """Writes the driver of one scan.

    Parameters
    ----------
    n_consts, n_carry, n_xs : int
    advance : StepSource, optional
        inputs consts, carry, xs; outputs heads of chains, ys.
    reverse : StepSource, optional
        inputs consts, carry, xs, bars; outputs const bars, carry bars, x bars.
    bar_chains : tuple of Chain
        Cotangents of the carry, by their number among the cotangents: each computed one
        and those that hold its old values.
    y_bars : int
        Number of records with a cotangent.
    const_bars, x_bars : tuple of int
        Which constants and xs get a gradient.
    halts : bool
        The only record says whether the next step is to be made.
    has_ghosts : bool
        After each step a function is called that fetches ghosts of what the step has made.
    """

    n_consts: int
    n_carry: int
    n_xs: int
    chains: tuple[Chain, ...]
    advance: StepSource | None
    reverse: StepSource | None
    bar_chains: tuple[Chain, ...] = ()
    y_bars: int = 0
    const_bars: tuple[int, ...] = ()
    x_bars: tuple[int, ...] = ()
    halts: bool = False
    has_ghosts: bool = False
    table: AddressTable = field(default_factory=AddressTable)
    lines: Lines = field(default_factory=Lines)

    def write(self) -> SweepSource:
        """The whole module's text."""
        t, lines = self.table, self.lines
        parts = [_HEADER]
        parts += [s.text for s in (self.advance, self.reverse) if s is not None]
        lines.add("@njit(SIGNATURE, nogil=True, cache=True)")
        lines.indent("def sweep(tid, nt, sync, scratch, P64, P32, table_, n_rows, A_, S_):")
        lines.add("A, S, T = i64(A_), i64(S_), i64(table_)")
        lines.add("mode = flush_denormals()")
        for j in range(self.n_carry):
            lines.add(f"c{j} = S[{2 * j}]")
            lines.add(f"p{j} = S[{2 * j + 1}]")
        lines.add(f"m = S[{2 * self.n_carry}]")
        lines.add("n_advanced = 0")
        lines.add("n_reversed = 0")
        if self.halts:
            lines.add(f"is_over = S[{2 * self.n_carry + 3}]")
        lines.indent("for row in range(n_rows):")
        if self.halts:
            lines.indent("if is_over != 0:")
            lines.add("break")
            lines.dedent()
        lines.add("kind, start, stop, slot = T[4*row], T[4*row+1], T[4*row+2], T[4*row+3]")
        keyword = "if"
        if self.advance is not None:
            lines.indent(f"{keyword} kind == {ADVANCE}:")
            self._advance(t)
            lines.dedent()
            keyword = "elif"
        if self.reverse is not None:
            lines.indent(f"{keyword} kind == {REVERSE}:")
            self._reverse(t)
            lines.dedent()
        self._store_and_load(t)
        lines.dedent()
        for j in range(self.n_carry):
            lines.add(f"S[{2 * j}] = c{j}")
            lines.add(f"S[{2 * j + 1}] = p{j}")
        lines.add(f"S[{2 * self.n_carry}] = m")
        lines.add(f"S[{2 * self.n_carry + 1}] += n_advanced")
        lines.add(f"S[{2 * self.n_carry + 2}] += n_reversed")
        if self.halts:
            lines.add(f"S[{2 * self.n_carry + 3}] = is_over")
        lines.add("restore_denormals(mode)")
        parts.append("\n".join(lines.text) + "\n")
        return SweepSource("\n".join(parts), t, self.advance, self.reverse, self.chains)

    # ------------------------------------------------------------------ actions

    def _head_out(self, k: int, chain: Chain) -> str:
        t = self.table
        length = len(chain.components)
        return f"{t(f'ring{k}')} + ((n + {length}) % {t(f'ring_size{k}')}) * {t(f'ring_step{k}')}"

    def _advance(self, t: AddressTable) -> None:
        assert self.advance is not None
        lines, step = self.lines, self.advance.step
        lines.indent("for n in range(start, stop):")
        for k, chain in enumerate(self.chains):
            lines.add(f"o{k} = {self._head_out(k, chain)}")
        outer = self._forward_inputs(step.inputs, "c", "forward")
        outputs: dict[int, str] = {}
        for k, b in enumerate(step.outputs):
            if k < len(self.chains):
                outputs[b.number] = f"o{k}"
            elif self.halts:
                outputs[b.number] = self._flag()
            else:
                y = k - len(self.chains)
                outputs[b.number] = f"{t(f'y{y}')} + n * {t(f'y_step{y}')}"
        self._call(self.advance, outer | outputs, "advance")
        for k, chain in enumerate(self.chains):
            for older, newer in zip(
                reversed(chain.components[1:]), reversed(chain.components[:-1]), strict=True
            ):
                lines.add(f"p{older} = c{older}")
                lines.add(f"c{older} = c{newer}")
            head = chain.components[0]
            lines.add(f"p{head} = c{head}")
            lines.add(f"c{head} = o{k}")
        if self.has_ghosts:
            self._tell("states", [f"c{j}" for j in range(self.n_carry)])
            self._exchange("states", self.advance)
        if self.halts:
            # All threads look at it: one that is ahead writes the other flag.
            lines.add("m = n + 1")
            lines.add("n_advanced += 1")
            lines.add("barrier(sync, nt)")
            lines.indent(f"if u8({self._flag()})[0] == 0:")
            lines.add("is_over = 1")
            lines.add("break")
            lines.dedent()
            lines.dedent()
            return
        lines.dedent()
        lines.add("m = stop")
        lines.add("n_advanced += stop - start")

    def _flag(self) -> str:
        return f"{self.table('flags')} + (n % 2) * 64"

    def _forward_inputs(self, inputs: list[Buffer], carry: str, tag: str) -> dict[int, str]:
        t, result = self.table, {}
        for k, b in enumerate(inputs[: self.n_consts + self.n_carry + self.n_xs]):
            if k < self.n_consts:
                result[b.number] = t(f"const{k}")
            elif k < self.n_consts + self.n_carry:
                result[b.number] = f"{carry}{k - self.n_consts}"
            else:
                x = k - self.n_consts - self.n_carry
                result[b.number] = f"{t(f'x{x}')} + n * {t(f'x_step{x}')}"
        return result

    def _call(self, source: StepSource, known: dict[int, str], tag: str) -> None:
        t, arguments = self.table, []
        for b in source.step.all_buffers:
            arguments.append(known.get(b.number) or t(f"{tag}_work{b.number}"))
        if source.travelling is not None:
            is_early = source.travelling.is_early
            what = "bars" if source is self.reverse else "states"
            call = t(f"start_{what}") if is_early else f"{t(f'finish_{what}')} if n > start else 0"
            self.lines.add(f"travel = {call}")
            quiet = [t(f"{what}_{name}") for name in source.travelling.names()[1:]]
            arguments += ["travel", *quiet]
        self.lines.add(f"{source.name}(tid, nt, sync, scratch, P64, P32, {', '.join(arguments)})")

    def _reverse(self, t: AddressTable) -> None:
        assert self.reverse is not None
        lines, step = self.lines, self.reverse.step
        lines.indent("for n in range(stop - 1, start - 1, -1):")
        if self.n_carry:
            self._choose_state(t)
        known = self._forward_inputs(step.inputs, "s", "reverse")
        bar_inputs = step.inputs[self.n_consts + self.n_carry + self.n_xs :]
        n_bars = sum(len(c.components) for c in self.bar_chains)
        for c, chain in enumerate(self.bar_chains):
            ring = f"% {t(f'bar_size{c}')}) * {t(f'bar_step{c}')}"
            for depth, k in enumerate(chain.components):
                known[bar_inputs[k].number] = f"{t(f'bar{c}')} + ((n + {1 + depth}) {ring}"
        for y, b in enumerate(bar_inputs[n_bars:]):
            known[b.number] = f"{t(f'y_bar{y}')} + n * {t(f'y_bar_step{y}')}"
        for k, b in enumerate(step.outputs):
            c = k - len(self.const_bars)
            if c < 0:
                known[b.number] = t(f"const_bar{k}")
            elif c < len(self.bar_chains):
                ring = f"% {t(f'bar_size{c}')}) * {t(f'bar_step{c}')}"
                known[b.number] = f"{t(f'bar{c}')} + (n {ring}"
            else:
                x = c - len(self.bar_chains)
                known[b.number] = f"{t(f'x_bar{x}')} + n * {t(f'x_bar_step{x}')}"
        if self.has_ghosts:
            first = len(self.const_bars)
            made = step.outputs[first : first + len(self.bar_chains)]
            self._tell("bars", [known[b.number] for b in made])
        self._call(self.reverse, known, "reverse")
        if self.has_ghosts:
            self._exchange("bars", self.reverse)
        lines.dedent()
        lines.add("n_reversed += stop - start")

    def _tell(self, what: str, addresses: list[str]) -> None:
        """Where the arrays are whose ghosts are fetched."""
        self.lines.indent("if tid == 0:")
        for k, address in enumerate(addresses):
            self.lines.add(f"i64({self.table(f'{what}_made')})[{k}] = {address}")
        self.lines.dedent()

    def _exchange(self, what: str, source: StepSource) -> None:
        """One thread fetches ghosts behind a step, as far as messages do not travel in steps."""
        lines, t, travelling = self.lines, self.table, source.travelling
        is_late = travelling is not None and not travelling.is_early
        lines.add("barrier(sync, nt)")
        lines.indent("if tid == 0:")
        if travelling is None or is_late:
            lines.add(f"call_back({t(f'start_{what}')})")
        if is_late:
            lines.dedent()
            lines.indent("if n + 1 == stop:")
            lines.indent("if tid == 0:")
        lines.add(f"call_back({t(f'finish_{what}')})")
        lines.dedent()
        lines.add("barrier(sync, nt)")
        if is_late:
            lines.dedent()

    def _choose_state(self, t: AddressTable) -> None:
        """Where the state before the step is: trajectory, current state or the one before."""
        lines = self.lines
        lines.indent(f"if {t('keeps_all')} != 0:")
        for k, chain in enumerate(self.chains):
            for depth, j in enumerate(chain.components):
                position = f"(n + {len(chain.components) - 1 - depth}) % {t(f'ring_size{k}')}"
                lines.add(f"s{j} = {t(f'ring{k}')} + ({position}) * {t(f'ring_step{k}')}")
        if not self.n_carry:
            lines.add("pass")
        lines.dedent()
        for condition, source in (("elif m == n:", "c"), ("else:", "p")):
            lines.indent(condition)
            for j in range(self.n_carry):
                lines.add(f"s{j} = {source}{j}")
            lines.dedent()

    def _store_and_load(self, t: AddressTable) -> None:
        lines = self.lines
        if self.advance is None and self.reverse is None:
            return
        lines.indent(f"elif kind == {STORE}:")
        lines.add("barrier(sync, nt)")
        lines.add(f"at = {t('slots')} + slot * {t('slot_step')}")
        # The state in work, or the one before it.
        for j in range(self.n_carry):
            lines.add(f"s{j} = c{j} if m == start else p{j}")
            lines.add(
                f"copy_bytes(at + {t(f'slot_offset{j}')}, s{j}, {t(f'slot_bytes{j}')}, tid, nt)"
            )
        lines.add("barrier(sync, nt)")
        lines.dedent()
        lines.indent(f"elif kind == {LOAD}:")
        lines.add(f"at = {t('slots')} + slot * {t('slot_step')}")
        for j in range(self.n_carry):
            lines.add(f"c{j} = at + {t(f'slot_offset{j}')}")
        lines.add("m = start")
        lines.dedent()


_HEADER = """import math

import numpy as np
from numba import float32, float64, int32, int64, njit, types

from backsweep.codegen.native import (
    add_blocks_c8, add_blocks_c16, add_blocks_f4, add_blocks_f8, arguments_are_disjoint, barrier,
    call_back, copy_bytes, copy_exactly, f32, f64, fill_zero, flush_denormals, fold_f32, fold_f64,
    i32, i64, narrow, p_f32, p_f64, p_i32, p_i64, p_u8, restore_denormals, rows_between, rows_of,
    u8, view,
)
from backsweep.codegen.native_math import (
    exponent_of, far_rest, far_turns, mantissa_of, power_of_two, root_guess, upper_half,
)

U = np.uint64
ZERO_f8, ONE_f8, MINUS_f8 = np.float64(0), np.float64(1), np.float64(-1)
ZERO_f4, ONE_f4, MINUS_f4 = np.float32(0), np.float32(1), np.float32(-1)
u8_0, u8_1 = np.uint8(0), np.uint8(1)
SIGNATURE = types.void(*[types.int64] * 10)

"""
