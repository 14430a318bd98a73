"""From a scan's step to compiled sweeps: which programs, which modules.

Sources are kept per step text for the life of the process, so that a second trace of the
same step costs no lowering; machine code is cached by `codegen.cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.codegen.cache import load_sweep
from backsweep.codegen.numba_source import Parameters
from backsweep.codegen.step import LoweredStep, lower
from backsweep.codegen.step_source import StepSource, write_step
from backsweep.codegen.sweep_source import Chain, SweepSource, SweepWriter, find_chains
from backsweep.ir import Program, verify
from backsweep.passes import simplify, vjp_program
from backsweep.primitives.control import ScanShape

MIN_WORK_FOR_THREADS = 30_000
"""Scalar operations per step below which a second thread costs more than it brings."""


@dataclass
class CompiledSweep:
    """A loaded sweep and what must be passed to it."""

    source: SweepSource
    run: Callable[..., Any]
    p64: np.ndarray
    p32: np.ndarray
    work: int
    """Scalar operations of the heavier of its steps."""
    const_bars: tuple[int, ...] = ()
    bars: tuple[int, ...] = ()
    y_bars: tuple[int, ...] = ()
    x_bars: tuple[int, ...] = ()


def forward_program(step: Program, shape: ScanShape, chains: tuple[Chain, ...], ys: bool) -> Program:
    """consts, carry, x -> heads of chains, ys."""
    heads = tuple(step.outputs[c.components[0]] for c in chains)
    records = tuple(step.outputs[shape.n_carry :]) if ys else ()
    return simplify(Program(step.inputs, step.equations, (*heads, *records), "forward"))


def _load(writer: SweepWriter, parameters: Parameters, steps: list[LoweredStep]) -> CompiledSweep:
    source = writer.write()
    p64, p32 = parameters.arrays()
    return CompiledSweep(source, load_sweep(source.text), p64, p32, max(map(work_of, steps)))


def work_of(step: LoweredStep) -> int:
    """Scalar operations of a step that threads could share."""
    from backsweep.codegen.step import LoweredKernel

    total = 0
    for phase in step.phases:
        if isinstance(phase, LoweredKernel):
            for box in phase.kernel.boxes:
                points = 1
                for lo, hi in box.box:
                    points *= hi - lo
                total += points * len(box.graph.nodes)
    return total


def _advance_source(
    step: Program, shape: ScanShape, chains: tuple[Chain, ...], ys: bool, parameters: Parameters
) -> StepSource:
    program = verify(forward_program(step, shape, chains, ys))
    return write_step(lower(program), "forward" if ys else "advance", parameters)


def compile_forward(step: Program, shape: ScanShape) -> CompiledSweep:
    """A sweep that advances and records."""
    parameters = Parameters()
    chains = find_chains(step, shape.n_consts, shape.n_carry)
    advance = _advance_source(step, shape, chains, True, parameters)
    n_xs = len(step.inputs) - shape.n_consts - shape.n_carry
    writer = SweepWriter(shape.n_consts, shape.n_carry, n_xs, chains, advance, None)
    return _load(writer, parameters, [advance.step])


def compile_reverse(
    step: Program,
    shape: ScanShape,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
    *,
    advances: bool,
) -> CompiledSweep:
    """A sweep that reverses, and advances where the schedule does not keep every state."""
    parameters = Parameters()
    chains = find_chains(step, shape.n_consts, shape.n_carry)
    advance = _advance_source(step, shape, chains, False, parameters) if advances else None
    program = verify(vjp_program(step, active_in, active_out, "reverse"))
    consts, carry, xs = shape.split_inputs(active_in)
    flags = lambda values: tuple(k for k, v in enumerate(values) if v)  # noqa: E731
    n_bars = sum(active_out)
    n_inputs = len(step.inputs)
    owned = [False] * n_inputs + [k < sum(carry) for k in range(n_bars)]
    accumulate = [k < sum(consts) for k in range(len(program.outputs))]
    reverse = write_step(lower(program, owned=owned, accumulate=accumulate), "reverse", parameters)
    writer = SweepWriter(
        shape.n_consts,
        shape.n_carry,
        len(xs),
        chains,
        advance,
        reverse,
        bars=flags(carry),
        y_bars=n_bars - sum(carry),
        const_bars=flags(consts),
        x_bars=flags(xs),
    )
    steps = [reverse.step] + ([advance.step] if advance is not None else [])
    compiled = _load(writer, parameters, steps)
    compiled.const_bars, compiled.bars = flags(consts), flags(carry)
    compiled.x_bars = flags(xs)
    compiled.y_bars = flags(active_out[shape.n_carry :])
    return compiled


def threads_for(work: int, n_threads: int) -> int:
    return n_threads if work >= MIN_WORK_FOR_THREADS else 1
