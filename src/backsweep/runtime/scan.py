"""Scans and their reverse sweeps, run by compiled code under a schedule."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.codegen.step import NotLowerable
from backsweep.ir import Program
from backsweep.passes.residuals import ResidualPlan
from backsweep.primitives.control import ScanShape, scan_shape, stacked
from backsweep.runtime import interpreted
from backsweep.runtime.arrays import Arena, round_up
from backsweep.runtime.compiled import (
    CompiledSweep,
    compile_forward,
    compile_reverse,
)
from backsweep.runtime.cotangents import Cotangents
from backsweep.runtime.inner import check_inner_bytes
from backsweep.runtime.memory import available_bytes
from backsweep.runtime.plan import carry_types, plan_scan, why_python
from backsweep.runtime.report import ScanReport
from backsweep.runtime.snapshots import close_store, closed_on_error, open_store
from backsweep.runtime.sweeper import (
    ROWS_PER_TABLE,
    StateMemory,
    Sweeper,
    SweepInputs,
    compiled_fill,
)
from backsweep.schedule import StoreAll, TableSchedule
from backsweep.schedule.actions import ADVANCE, LOAD, REVERSE
from backsweep.schedule.binomial import PHASE
from backsweep.storage import AbstractStore


@dataclass
class Trajectory:
    """What a forward scan leaves for its reverse sweep.

    A reverse sweep may be repeated: the initial state stays.
    """

    step: Program
    shape: ScanShape
    schedule: TableSchedule
    memory: StateMemory
    store: AbstractStore | None
    stack: np.ndarray
    head: np.ndarray
    report: ScanReport
    plan: ResidualPlan | None = None
    records: Arena | None = None
    """Residuals of all steps, where they are kept instead of states."""
    is_fresh: bool = True
    stop: Any = field(default=None, repr=False)

    @property
    def keeps_all(self) -> bool:
        """Nothing is advanced twice, nothing is on disk."""
        return self.memory.keeps_all or self.plan is not None

    def __post_init__(self) -> None:
        if self.store is not None:
            self.stop = weakref.finalize(self, close_store, self.store)

    def close(self) -> None:
        if self.stop is not None:
            self.stop()


def _outputs(memory: StateMemory, ys: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(memory.current(j)) for j in range(len(memory.types))] + ys


def _allocate_ys(sweeper: Sweeper, step: Program, shape: ScanShape) -> list[np.ndarray]:
    ys = []
    for k, type in enumerate(shape.split_outputs(step.out_types)[1]):
        full = stacked(type, shape.length)
        y = np.zeros(max(1, full.size), full.dtype)
        sweeper.bind(f"y{k}", y)
        sweeper.values[f"y_step{k}"] = type.nbytes
        ys.append(y[: full.size].reshape(full.shape))
    return ys


def _inputs(step: Program, shape: ScanShape, consts: Any, xs: Any) -> SweepInputs:
    const_types, _, x_types = shape.split_inputs(step.in_types)
    return SweepInputs(consts, const_types, xs, x_types)


def run_scan(params: Any, args: Sequence[Any], report: ScanReport | None = None) -> list[Any]:
    """A scan whose trajectory nobody needs."""
    step, shape = params["step"], scan_shape(params)
    compiled = _try_compile(step, lambda: compile_forward(step, shape, in_place=True))
    if isinstance(compiled, str):
        return interpreted.run_scan(params, args)
    consts, init, xs = shape.split_inputs(args)
    memory = _state_memory(compiled, step, shape)
    memory.place(init)
    sweeper = Sweeper(compiled, memory, _inputs(step, shape, consts, xs))
    ys = _allocate_ys(sweeper, step, shape)
    if shape.length:
        sweeper.run_in_pieces(np.array([[ADVANCE, 0, shape.length, -1]], np.int64))
    return _outputs(memory, ys)


def _state_memory(
    compiled: CompiledSweep,
    step: Program,
    shape: ScanShape,
    *,
    keeps_all: bool = False,
    n_slots: int = 0,
) -> StateMemory:
    chains = compiled.source.chains
    return StateMemory(
        shape,
        carry_types(step, shape),
        chains,
        shape.length,
        keeps_all,
        n_slots,
        compiled.ring_sizes,
    )


def _try_compile(step: Program, build: Any) -> CompiledSweep | str:
    """The compiled sweep, or why there is none."""
    try:
        return why_python(step) or build()
    except NotLowerable as reason:
        return str(reason)


def run_scan_forward(params: Any, args: Sequence[Any], report: ScanReport) -> list[Any]:
    """A scan that leaves a trajectory: phase 1 of the schedule."""
    step, shape = params["step"], scan_shape(params)
    chosen = plan_scan(params, report)
    request, schedule, plan = chosen.request, chosen.schedule, chosen.residuals
    keeps_all = isinstance(schedule, StoreAll) and not request.uses_disk
    program = plan.forward if plan is not None else step

    def build() -> CompiledSweep:
        check_inner_bytes(step, available_bytes)
        return compile_forward(program, shape, in_place=plan is not None)

    compiled = _try_compile(step, build)
    if isinstance(compiled, str):
        report.executor = f"python ({compiled})"
        return interpreted.run_scan_forward(params, args, schedule, request, report)
    consts, init, xs = shape.split_inputs(args)
    n_slots = 0 if keeps_all else (1 if request.uses_disk else schedule.n_snapshots)
    keeps_states = keeps_all and plan is None
    memory = _state_memory(compiled, step, shape, keeps_all=keeps_states, n_slots=n_slots)
    memory.place(init)
    sweeper = Sweeper(compiled, memory, _inputs(step, shape, consts, xs))
    ys = _allocate_ys(sweeper, step, shape)
    store = (
        open_store(request, step, memory.types, schedule.n_snapshots) if request.uses_disk else None
    )
    stack, head = schedule.start()
    track = Trajectory(step, shape, schedule, memory, store, stack, head, report, plan)
    if plan is not None:
        track.records = _allocate_records(sweeper, plan, len(ys), shape)
    begin = time.perf_counter()
    with closed_on_error(track):
        _run_phase(track, sweeper, ADVANCE)
    report.forward_seconds = time.perf_counter() - begin
    report.n_advances, report.n_threads = memory.n_advances, sweeper.n_threads
    report.work_bytes = sweeper.work_bytes
    _report_snapshots(track, chosen.state_bytes)
    return [*_outputs(memory, ys), track]


def _report_snapshots(track: Trajectory, state_bytes: int) -> None:
    report, memory = track.report, track.memory
    if track.records is not None:
        report.schedule += ", residuals instead of states"
        report.snapshot_bytes_memory = track.records.nbytes
    elif memory.keeps_all:
        report.snapshot_bytes_memory = memory.ring.nbytes
    elif track.store is not None:
        report.snapshot_bytes_disk = track.schedule.n_snapshots * state_bytes
    else:
        report.snapshot_bytes_memory = track.schedule.n_snapshots * memory.slot_bytes


def _allocate_records(sweeper: Sweeper, plan: ResidualPlan, first: int, shape: ScanShape) -> Arena:
    """Memory for the residuals of all steps, as records after the ys."""
    types = plan.forward.out_types[-plan.n_residuals :]
    steps = [round_up(t.nbytes) for t in types]  # type: ignore[union-attr]
    arena = Arena([n * shape.length for n in steps], zeroed=False)
    for k, n in enumerate(steps):
        sweeper.values[f"y{first + k}"] = arena.address(k)
        sweeper.values[f"y_step{first + k}"] = n
    return arena


def _tables(track: Trajectory) -> Any:
    """Action rows of the current phase, in blocks."""
    table = np.empty((ROWS_PER_TABLE, 4), np.int64)
    fill = compiled_fill()
    phase = track.head[PHASE]
    while track.head[PHASE] == phase:
        n_rows = fill(track.stack, track.head, table)
        if n_rows == 0:
            return
        yield table[:n_rows]


def _execute(track: Trajectory, sweeper: Sweeper, table: np.ndarray) -> None:
    if track.store is not None:
        sweeper.run_with_store(table, track.store)
    else:
        sweeper.run_in_pieces(table)


def _run_phase(track: Trajectory, sweeper: Sweeper, kind: int) -> None:
    """Phase 1 (ADVANCE) or phase 2 (REVERSE) of the schedule."""
    if track.keeps_all:
        if track.shape.length:
            sweeper.run_in_pieces(np.array([[kind, 0, track.shape.length, -1]], np.int64))
        return
    for table in _tables(track):
        _execute(track, sweeper, table)


def _restart(track: Trajectory, sweeper: Sweeper) -> None:
    """Run phase 1 again from the initial state, for another reverse sweep."""
    track.stack, track.head = track.schedule.start()
    _execute(track, sweeper, np.array([[LOAD, 0, 0, 0]], np.int64))
    for table in _tables(track):
        _execute(track, sweeper, table)


def run_scan_reverse(params: Any, args: Sequence[Any]) -> list[Any]:
    """The reverse sweep: phase 2 of the schedule."""
    track = args[0]
    if isinstance(track, interpreted.PythonTrajectory):
        return interpreted.run_scan_reverse(params, args)
    step, shape = track.step, track.shape
    active_in, active_out = params["active_in"], params["active_out"]
    n_primal = len(step.inputs) - shape.n_carry
    consts, xs = args[1 : 1 + shape.n_consts], args[1 + shape.n_consts : 1 + n_primal]
    bars = args[1 + n_primal :]
    compiled = compile_reverse(
        step,
        shape,
        active_in,
        active_out,
        advances=not track.keeps_all,
        plan=track.plan,
        delays=shape.length > 0
        and all(not np.any(b) for b in bars[: sum(active_out[: shape.n_carry])]),
    )
    inputs, memory = _inputs(step, shape, consts, xs), track.memory
    if track.plan is not None:
        types = track.plan.forward.out_types[-track.plan.n_residuals :]
        inputs.records = [
            (track.records.address(k), round_up(t.nbytes)) for k, t in enumerate(types)
        ]
        memory = StateMemory(shape, (), (), shape.length, False, 0, ())
    sweeper = Sweeper(compiled, memory, inputs)
    results = Cotangents(sweeper, compiled, step, shape, consts, bars)
    begin = time.perf_counter()
    if not track.is_fresh and not track.keeps_all:
        with closed_on_error(track):
            _restart(track, sweeper)
    track.is_fresh = False
    with closed_on_error(track):
        _run_phase(track, sweeper, REVERSE)
    report = track.report
    report.reverse_seconds += time.perf_counter() - begin
    report.n_advances = track.memory.n_advances
    report.n_reverses += memory.n_reverses - results.n_reverses_before
    report.work_bytes = max(report.work_bytes, sweeper.work_bytes)
    return results.collect(consts)
