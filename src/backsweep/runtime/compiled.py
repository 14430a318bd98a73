"""From a scan's step to compiled sweeps: which programs, which modules.

Compiled sweeps are remembered by the text of the step, so that a second trace of the same
step costs no lowering; machine code is cached by `codegen.cache`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any

import numpy as np

from backsweep.codegen.cache import load_sweep
from backsweep.codegen.inner import LoweredScan
from backsweep.codegen.numba_source import Parameters
from backsweep.codegen.overlap import Travelling
from backsweep.codegen.statistics import statistics
from backsweep.codegen.step import LoweredKernel, LoweredStep, Ring, lower
from backsweep.codegen.step_source import StepSource, write_step
from backsweep.codegen.sweep_source import Chain, SweepSource, SweepWriter, find_chains
from backsweep.ir import Program, program_text, verify
from backsweep.passes import vjp_program
from backsweep.passes.delay import Delayed, delay
from backsweep.passes.products import Product, carry_products
from backsweep.passes.residuals import (
    ResidualPlan,
    plan_residuals,
    split_of_pair,
    split_of_step,
)
from backsweep.primitives.control import ScanShape
from backsweep.runtime.inner import forward_program, lowerable

MAX_REMEMBERED = 128

MIN_WORK_FOR_THREADS = 30_000
"""Scalar operations per step below which a second thread costs more than it brings."""


@dataclass
class CompiledSweep:
    """A sweep and what must be passed to it."""

    source: SweepSource
    p64: np.ndarray
    p32: np.ndarray
    work: int
    """Scalar operations of the heavier of its steps."""
    ring_sizes: tuple[int, ...] = ()
    """Positions that each chain of the state needs."""

    @cached_property
    def run(self) -> Callable[..., Any]:
        """The machine code, compiled or taken from the cache when it is first needed."""
        return load_sweep(self.source.text)

    @property
    def work_bytes(self) -> int:
        """Bytes of the work arrays."""
        sources = (self.source.advance, self.source.reverse)
        return sum(b.nbytes for s in sources if s is not None for b in s.step.work)


@dataclass
class ReverseSweep(CompiledSweep):
    """A sweep that reverses.

    Attributes
    ----------
    const_bars, bars, y_bars, x_bars : tuple of int
        Which consts, carries, records and xs have a cotangent.
    bar_chains : tuple of Chain
        Cotangents of the carry by their number among `bars`.
    bar_sizes : tuple of int
        Positions that each of these chains needs.
    recover : dict
        Cotangents that are handed on: programs (consts, old value) -> cotangent.
    products : tuple of Product
        What is carried besides the cotangents; numbered after `bars`.
    """

    const_bars: tuple[int, ...] = ()
    bars: tuple[int, ...] = ()
    y_bars: tuple[int, ...] = ()
    x_bars: tuple[int, ...] = ()
    bar_chains: tuple[Chain, ...] = ()
    bar_sizes: tuple[int, ...] = ()
    recover: dict[int, Program] = field(default_factory=dict)
    products: tuple[Product, ...] = ()

    @property
    def n_bar_inputs(self) -> int:
        """Inputs of the reverse step that lie in rings."""
        return len(self.bars) + len(self.products)


def work_of(step: LoweredStep) -> int:
    """Scalar operations of a step that threads could share."""
    total = 0
    for phase in step.phases:
        if isinstance(phase, LoweredScan):
            total += phase.scan.length * work_of(phase.inner)
        elif isinstance(phase, LoweredKernel):
            for box in phase.kernel.boxes:
                points = 1
                for lo, hi in box.box:
                    points *= hi - lo
                total += points * len(box.graph.nodes)
    return total


def _advance_source(
    step: Program,
    shape: ScanShape,
    chains: tuple[Chain, ...],
    parameters: Parameters,
    *,
    ys: bool,
    in_place: bool,
    exchanged: Sequence[int],
) -> StepSource:
    program = verify(forward_program(step, shape, chains, ys))
    replace = {k: shape.n_consts + c.components[-1] for k, c in enumerate(chains)}
    lowered = lower(lowerable(program), replace=replace if in_place else {})
    made = {lowered.inputs[shape.n_consts + k].number: k for k in exchanged}
    travelling = Travelling(made, is_early=False) if made else None
    return write_step(lowered, "forward" if ys else "advance", parameters, travelling)


def _ring_sizes(chains: tuple[Chain, ...], step: LoweredStep, first: int = 0) -> tuple[int, ...]:
    return tuple(len(c.components) + (first + k not in step.in_place) for k, c in enumerate(chains))


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember results by the text of the step: a step that is traced again costs no lowering.

    Two programs with one text are equal: shapes, constants and order are in it, arrays never.
    """
    known: OrderedDict[Any, Any] = OrderedDict()

    @wraps(function)
    def lookup(step: Program, *args: Any, **kwargs: Any) -> Any:
        settings = tuple(_as_key(v) for v in kwargs.values())
        key = (program_text(step), args, tuple(kwargs), settings)
        if key in known:
            statistics.memory_hits += isinstance(known[key], CompiledSweep)
        else:
            known[key] = function(step, *args, **kwargs)
            if len(known) > MAX_REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    return lookup


def _as_key(setting: Any) -> Any:
    if isinstance(setting, Program):
        return program_text(setting)
    return "plan" if isinstance(setting, ResidualPlan) else setting


@remembered
def compile_forward(
    step: Program,
    shape: ScanShape,
    *,
    in_place: bool,
    halts: bool = False,
    exchanged: tuple[int, ...] | None = None,
) -> CompiledSweep:
    """A sweep that advances and records; `in_place` if no state is needed again.

    With `halts` its one record says whether it goes on. Of a scan that is cut, ghosts of the
    components `exchanged` are fetched after each step (`codegen.sweep_source`).
    """
    parameters = Parameters()
    chains = find_chains(step, shape.n_consts, shape.n_carry)
    # A sweep that may end after any step does not leave messages on their way.
    advance = _advance_source(
        step,
        shape,
        chains,
        parameters,
        ys=True,
        in_place=in_place,
        exchanged=() if halts else exchanged or (),
    )
    n_xs = len(step.inputs) - shape.n_consts - shape.n_carry
    source = SweepWriter(
        shape.n_consts,
        shape.n_carry,
        n_xs,
        chains,
        advance,
        None,
        halts=halts,
        has_ghosts=exchanged is not None,
    ).write()
    p64, p32 = parameters.arrays()
    sizes = _ring_sizes(chains, advance.step)
    return CompiledSweep(source, p64, p32, work_of(advance.step), sizes)


@dataclass(frozen=True)
class _Reversal:
    """The reverse program of a step and how its inputs and outputs are divided."""

    program: Program
    recover: dict[int, Program]
    products: tuple[Product, ...]
    n_states: int
    n_xs: int
    const_bars: tuple[int, ...]
    bars: tuple[int, ...]
    x_bars: tuple[int, ...]
    chains: tuple[Chain, ...]
    """Of the cotangents of the carry."""

    def write(self, n_before: int, parameters: Parameters, fetched: tuple[int, ...]) -> StepSource:
        program = self.program
        n_after = len(program.inputs) - n_before
        n_bars = len(self.bars) + len(self.products)
        owned = [False] * n_before + [k < n_bars for k in range(n_after)]
        n = len(self.const_bars)
        lowered = lower(
            lowerable(verify(program), owned),
            accumulate=[k < n for k in range(len(program.outputs))],
            replace={n + c: n_before + k.components[-1] for c, k in enumerate(self.chains)},
            rings=[
                Ring(tuple(n_before + j for j in k.components), n + c)
                for c, k in enumerate(self.chains)
            ],
        )
        heads = enumerate(c.components[0] for c in self.chains)
        made = {lowered.outputs[n + c].number: k for c, k in heads if k in fetched}
        travelling = Travelling(made, is_early=True) if made else None
        return write_step(lowered, "reverse", parameters, travelling)


def _reversal(
    step: Program,
    shape: ScanShape,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
    plan: ResidualPlan | None,
    delays: bool,
    adjoint: Program | None,
    fetched: tuple[int, ...],
) -> _Reversal:
    consts, carry, xs = shape.split_inputs(active_in)
    const_bars, bars = _flags(consts), _flags(carry)
    n_states = 0 if plan is not None else shape.n_carry
    n_xs = len(xs) + (len(plan.types) if plan is not None else 0)
    if plan is not None:
        program = plan.program_for(active_out)
    elif adjoint is not None:
        program = adjoint
    else:
        program = vjp_program(step, active_in, active_out, "reverse")
    delayed = Delayed(program, {}, {})
    n_before = shape.n_consts + n_states + n_xs
    if delays:
        delayed = delay(program, shape.n_consts, n_before, len(bars), len(const_bars), fetched)
    chains = _bar_chains(len(bars), delayed.follows)
    program, products = carry_products(
        delayed.program,
        shape.n_consts,
        delayed.program.inputs[n_before : n_before + len(bars)],
        [c.components[0] for c in chains],
        len(const_bars),
    )
    chains += tuple(Chain((len(bars) + k,)) for k in range(len(products)))
    return _Reversal(
        program, delayed.recover, products, n_states, n_xs, const_bars, bars, _flags(xs), chains
    )


@remembered
def residual_plan(
    step: Program,
    shape: ScanShape,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...] = (),
    *,
    adjoint: Program | None = None,
) -> ResidualPlan | None:
    """Residuals instead of states, where they are cheaper."""
    chains = find_chains(step, shape.n_consts, shape.n_carry)
    types = shape.split_inputs(step.in_types)[1]
    state_bytes = sum(types[c.components[0]].nbytes for c in chains)
    if adjoint is None:
        parts = split_of_step(step, active_in)
    else:
        parts = split_of_pair(step, adjoint, active_out)
    return plan_residuals(parts, shape.n_consts, shape.n_carry, state_bytes)


@remembered
def compile_reverse(
    step: Program,
    shape: ScanShape,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
    *,
    advances: bool,
    plan: ResidualPlan | None = None,
    delays: bool,
    adjoint: Program | None = None,
    exchanged: tuple[int, ...] | None = None,
    fetched: tuple[int, ...] = (),
) -> ReverseSweep:
    """A sweep that reverses, and advances where the schedule does not keep every state.

    With a `plan` it reads residuals, which follow the xs, instead of states. `delays` allows
    cotangents to be handed on instead of being stored; those must begin at 0. An `adjoint` is the
    reverse of the step where that is not to be derived from it. `exchanged` is as in
    `compile_forward`; of the bars that are `fetched` other ranks get parts.
    """
    parameters = Parameters()
    r = _reversal(step, shape, active_in, active_out, plan, delays, adjoint, fetched)
    reverse = r.write(shape.n_consts + r.n_states + r.n_xs, parameters, fetched)
    chains: tuple[Chain, ...] = ()
    if plan is None:
        chains = find_chains(step, shape.n_consts, shape.n_carry)
    advance = None
    if advances:
        advance = _advance_source(
            step, shape, chains, parameters, ys=False, in_place=False, exchanged=exchanged or ()
        )
    y_bars = _flags(active_out[shape.n_carry :])
    source = SweepWriter(
        shape.n_consts,
        r.n_states,
        r.n_xs,
        chains,
        advance,
        reverse,
        bar_chains=r.chains,
        y_bars=len(y_bars),
        const_bars=r.const_bars,
        x_bars=r.x_bars,
        has_ghosts=exchanged is not None,
    ).write()
    p64, p32 = parameters.arrays()
    return ReverseSweep(
        source,
        p64,
        p32,
        max(work_of(s.step) for s in (advance, reverse) if s is not None),
        const_bars=r.const_bars,
        bars=r.bars,
        y_bars=y_bars,
        x_bars=r.x_bars,
        bar_chains=r.chains,
        bar_sizes=_ring_sizes(r.chains, reverse.step, len(r.const_bars)),
        recover=r.recover,
        products=r.products,
    )


def _flags(values: Sequence[bool]) -> tuple[int, ...]:
    return tuple(k for k, v in enumerate(values) if v)


def _bar_chains(n_bars: int, follows: dict[int, int]) -> tuple[Chain, ...]:
    old = {j: k for k, j in follows.items()}
    heads = [k for k in range(n_bars) if k not in follows]
    return tuple(Chain((k, old[k]) if k in old else (k,)) for k in heads)


def threads_for(work: int, n_threads: int) -> int:
    return n_threads if work >= MIN_WORK_FOR_THREADS else 1
