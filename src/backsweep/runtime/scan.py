"""Scans and their reverse sweeps, run by compiled code under a schedule."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep import config
from backsweep.codegen.step import NotLowerable
from backsweep.ir import ArrayType, Program, program_hash
from backsweep.primitives.control import ScanShape, scan_shape, stacked
from backsweep.runtime import interpreted
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.runtime.compiled import CompiledSweep, compile_forward, compile_reverse
from backsweep.runtime.report import ScanReport
from backsweep.runtime.sweeper import ROWS_PER_TABLE, StateMemory, Sweeper, compiled_fill
from backsweep.schedule import AbstractSchedule, StoreAll
from backsweep.schedule.actions import ADVANCE, LOAD, REVERSE
from backsweep.schedule.binomial import FORWARD_PHASE, PHASE
from backsweep.storage import AbstractStore, Layout


def carry_types(step: Program, shape: ScanShape) -> tuple[ArrayType, ...]:
    return shape.split_inputs(step.in_types)[1]  # type: ignore[no-any-return]


def contiguous_bytes(step: Program, shape: ScanShape) -> int:
    """A whole trajectory, components that are handed on kept once."""
    from backsweep.codegen.sweep_source import find_chains

    types = carry_types(step, shape)
    return sum(
        (shape.length + len(c.components)) * types[c.components[0]].nbytes
        for c in find_chains(step, shape.n_consts, shape.n_carry)
    )


def open_store(request: Checkpointing, step: Program, types: Sequence[ArrayType]) -> AbstractStore:
    """The HDF5 store of a scan."""
    from backsweep.storage.hdf5 import HDF5Store

    assert request.directory is not None
    names = tuple(f"carry{k}" for k in range(len(types)))
    layout = Layout(
        names,
        tuple(t.shape for t in types),
        tuple(t.dtype for t in types),
        program=program_hash(step),
    )
    return HDF5Store(request.directory, layout, prefix=f"snapshot-{id(layout):x}")


@dataclass
class Trajectory:
    """What a forward scan leaves for its reverse sweep.

    A reverse sweep may be repeated: the initial state stays.
    """

    step: Program
    shape: ScanShape
    schedule: AbstractSchedule
    memory: StateMemory
    store: AbstractStore | None
    stack: np.ndarray
    head: np.ndarray
    report: ScanReport
    is_fresh: bool = True
    stop: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.store is not None:
            self.stop = weakref.finalize(self, _close, self.store)

    def close(self) -> None:
        if self.stop is not None:
            self.stop()


def _close(store: AbstractStore) -> None:
    with contextlib.suppress(OSError):
        store.close()


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


def run_scan(params: Any, args: Sequence[Any], report: ScanReport | None = None) -> list[Any]:
    """A scan whose trajectory nobody needs."""
    step, shape = params["step"], scan_shape(params)
    compiled = _try_compile(lambda: compile_forward(step, shape))
    if isinstance(compiled, str):
        return interpreted.run_scan(params, args)
    consts, init, xs = shape.split_inputs(args)
    types = carry_types(step, shape)
    memory = StateMemory(shape, types, compiled.source.chains, shape.length, False, 0)
    memory.place(init)
    sweeper = Sweeper(compiled, memory, step, consts, xs)
    ys = _allocate_ys(sweeper, step, shape)
    if shape.length:
        sweeper.run_in_pieces(np.array([[ADVANCE, 0, shape.length, -1]], np.int64))
    return _outputs(memory, ys)


def _try_compile(build: Any) -> CompiledSweep | str:
    """The compiled sweep, or why there is none."""
    if config.is_jit_disabled():
        return "BACKSWEEP_NO_JIT is set"
    try:
        return build()  # type: ignore[no-any-return]
    except NotLowerable as reason:
        return str(reason)


def run_scan_forward(params: Any, args: Sequence[Any], report: ScanReport) -> list[Any]:
    """A scan that leaves a trajectory: phase 1 of the schedule."""
    step, shape = params["step"], scan_shape(params)
    request: Checkpointing = params.get("checkpointing") or Checkpointing()
    types = carry_types(step, shape)
    state_bytes = sum(t.nbytes for t in types)
    schedule = request.choose(shape.length, state_bytes, contiguous_bytes(step, shape))
    report.schedule = type(schedule).__name__
    report.n_steps, report.n_snapshots = shape.length, schedule.n_snapshots
    compiled = _try_compile(lambda: compile_forward(step, shape))
    if isinstance(compiled, str):
        report.executor = f"python ({compiled})"
        return interpreted.run_scan_forward(params, args, schedule, request, report)
    keeps_all = isinstance(schedule, StoreAll) and not request.uses_disk
    n_slots = 0 if keeps_all else (1 if request.uses_disk else schedule.n_snapshots)
    consts, init, xs = shape.split_inputs(args)
    memory = StateMemory(shape, types, compiled.source.chains, shape.length, keeps_all, n_slots)
    memory.place(init)
    sweeper = Sweeper(compiled, memory, step, consts, xs)
    ys = _allocate_ys(sweeper, step, shape)
    store = open_store(request, step, types) if request.uses_disk else None
    stack, head = schedule.start()
    track = Trajectory(step, shape, schedule, memory, store, stack, head, report)
    begin = time.perf_counter()
    _forward_phase(track, sweeper)
    report.forward_seconds = time.perf_counter() - begin
    report.n_advances, report.n_threads = memory.n_advances, sweeper.n_threads
    report.work_bytes = sweeper.work_bytes
    if keeps_all:
        report.snapshot_bytes_memory = memory.ring.nbytes
    elif store is not None:
        report.snapshot_bytes_disk = schedule.n_snapshots * state_bytes
    else:
        report.snapshot_bytes_memory = schedule.n_snapshots * memory.slot_bytes
    return [*_outputs(memory, ys), track]


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


def _forward_phase(track: Trajectory, sweeper: Sweeper) -> None:
    if track.memory.keeps_all:
        if track.shape.length:
            sweeper.run_in_pieces(np.array([[ADVANCE, 0, track.shape.length, -1]], np.int64))
        return
    for table in _tables(track):
        _execute(track, sweeper, table)


def _reverse_phase(track: Trajectory, sweeper: Sweeper) -> None:
    if track.memory.keeps_all:
        if track.shape.length:
            sweeper.run_in_pieces(np.array([[REVERSE, 0, track.shape.length, -1]], np.int64))
        return
    for table in _tables(track):
        _execute(track, sweeper, table)


def _restart(track: Trajectory, sweeper: Sweeper) -> None:
    """Run phase 1 again from the initial state, for another reverse sweep."""
    track.stack, track.head = track.schedule.start()
    if track.store is not None:
        raise NotImplementedError
    sweeper.run(np.array([[LOAD, 0, 0, 0]], np.int64))
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
    compiled = compile_reverse(
        step, shape, active_in, active_out, advances=not track.memory.keeps_all
    )
    sweeper = Sweeper(compiled, track.memory, step, consts, xs)
    results = _Cotangents(sweeper, compiled, step, shape, args[1 + n_primal :])
    begin = time.perf_counter()
    if not track.is_fresh and not track.memory.keeps_all:
        _restart(track, sweeper)
    track.is_fresh = False
    _reverse_phase(track, sweeper)
    report = track.report
    report.reverse_seconds += time.perf_counter() - begin
    report.n_advances, report.n_reverses = track.memory.n_advances, track.memory.n_reverses
    report.work_bytes = max(report.work_bytes, sweeper.work_bytes)
    return results.collect()


class _Cotangents:
    """Memory of the cotangents of one reverse sweep."""

    def __init__(
        self, sweeper: Sweeper, compiled: CompiledSweep, step: Program, shape: ScanShape, bars: Any
    ) -> None:
        self.sweeper, self.compiled, self.shape = sweeper, compiled, shape
        self.consts, self.carry, self.xs = shape.split_inputs(step.in_types)
        ys = shape.split_outputs(step.out_types)[1]
        n = shape.length
        self.bars = []
        for k, (j, value) in enumerate(zip(compiled.bars, bars, strict=False)):
            type = self.carry[j]
            pair = np.zeros((2, max(8, type.size + 64)), type.dtype)
            sweeper.bind(f"bar{k}", pair)
            sweeper.values[f"bar_step{k}"] = pair.strides[0]
            pair[n & 1, : type.size] = np.asarray(value, type.dtype).reshape(-1)
            self.bars.append((pair, type))
        for k, (y, value) in enumerate(
            zip(compiled.y_bars, bars[len(compiled.bars) :], strict=True)
        ):
            type = ys[y]
            array = np.ascontiguousarray(value, type.dtype)
            sweeper.bind(f"y_bar{k}", array if array.size else np.zeros(1, type.dtype))
            sweeper.values[f"y_bar_step{k}"] = type.nbytes
        self.const_bars = [
            sweeper.bind(f"const_bar{k}", np.zeros(max(1, self.consts[j].size), _wide(self.consts[j])))
            for k, j in enumerate(compiled.const_bars)
        ]
        self.x_bars = []
        for k, j in enumerate(compiled.x_bars):
            type = self.xs[j]
            array = np.zeros(max(1, n * type.size), type.dtype)
            sweeper.bind(f"x_bar{k}", array)
            sweeper.values[f"x_bar_step{k}"] = type.nbytes
            self.x_bars.append((array, type))
        self._bind_partials()

    def _bind_partials(self) -> None:
        """Partial sums of reduced gradients stay through the whole sweep."""
        source = self.compiled.source.reverse
        assert source is not None
        self.partials: dict[int, np.ndarray] = {}
        outputs = {b.number: k for k, b in enumerate(source.step.outputs)}
        for phase in source.step.phases:
            for var, buffer in getattr(phase, "partials", {}).items():
                if var not in source.step.accumulated:
                    continue
                array = np.zeros(buffer.n_elements, buffer.dtype)
                self.sweeper.bind(f"reverse_work{buffer.number}", array)
                self.partials[outputs[source.step.buffers[var].number]] = array

    def collect(self) -> list[np.ndarray]:
        """Cotangents of the active consts, carry and xs."""
        results = []
        for k, (j, total) in enumerate(zip(self.compiled.const_bars, self.const_bars, strict=True)):
            type = self.consts[j]
            if k in self.partials:
                total = total + np.add.accumulate(self.partials[k])[-1]
            results.append(total[: type.size].reshape(type.shape).astype(type.dtype))
        for pair, type in self.bars:
            results.append(pair[0, : type.size].reshape(type.shape).copy())
        for array, type in self.x_bars:
            n = self.shape.length
            results.append(array[: n * type.size].reshape((n, *type.shape)))
        return results


def _wide(type: ArrayType) -> np.dtype:
    return np.dtype(np.complex128 if type.dtype.kind == "c" else np.float64)
