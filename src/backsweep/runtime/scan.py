"""Scans and their reverse sweeps, run by compiled code under a schedule."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.codegen.step import NotLowerable
from backsweep.ir import Program
from backsweep.passes.residuals import ResidualPlan
from backsweep.primitives.control import ScanShape, scan_shape, stacked
from backsweep.runtime import interpreted
from backsweep.runtime.arrays import Arena, round_up
from backsweep.runtime.compiled import CompiledSweep, compile_forward
from backsweep.runtime.cotangents import Cotangents
from backsweep.runtime.driver import Driver, Pause
from backsweep.runtime.executor import (
    compile_reverse_of,
    ranks_for,
    reverse_by_python,
    to_compile,
    try_compile,
)
from backsweep.runtime.ghosts import Carried, Ghosts, exchanged, ghosts_of
from backsweep.runtime.inner import check_inner_bytes
from backsweep.runtime.journal import NOT_RESUMABLE, Event, Point
from backsweep.runtime.memory import available_bytes
from backsweep.runtime.plan import ScanPlan, carry_types
from backsweep.runtime.report import ScanReport
from backsweep.runtime.resume import first_rows, rows_from, rows_of_rest, second_rows
from backsweep.runtime.snapshots import close_store, closed_on_error, open_store, waited_seconds
from backsweep.runtime.sweeper import KeptMachine, StateMemory, Sweeper, SweepInputs
from backsweep.runtime.talking import talks_itself
from backsweep.runtime.together import is_any
from backsweep.runtime.watch import Watch, watched
from backsweep.schedule.actions import ADVANCE


@dataclass
class Trajectory:
    """What a forward scan leaves for its reverse sweep.

    A reverse sweep may be repeated: the initial state stays.
    """

    step: Program
    shape: ScanShape
    plan: ScanPlan
    memory: StateMemory
    driver: Driver
    forward: Sweeper | None
    """Where states that were kept may have to be made again."""
    report: ScanReport
    records: Arena | None = None
    """Residuals of all steps, where they are kept instead of states."""
    is_fresh: bool = True
    """Whether the rows that are left are those of the whole reverse sweep."""
    is_complete: bool = True
    """Where every state is kept: whether all of them are there."""
    is_finite: bool = True
    """Whether the forward sweep's results were."""
    stop: Any = field(default=None, repr=False)

    @property
    def residuals(self) -> ResidualPlan | None:
        return self.plan.residuals

    @property
    def keeps_all(self) -> bool:
        """Nothing is advanced twice, nothing is on disk."""
        return self.plan.choice.keeps_all

    def __post_init__(self) -> None:
        if self.driver.store is not None:
            self.stop = weakref.finalize(self, close_store, self.driver.store)

    def close(self) -> None:
        if self.stop is not None:
            self.stop()


def _outputs(memory: StateMemory, ys: list[np.ndarray]) -> list[np.ndarray]:
    return [*map(np.array, memory.state()), *ys]


def _allocate_ys(sweeper: Sweeper, step: Program, shape: ScanShape) -> list[np.ndarray]:
    ys = []
    for k, type in enumerate(shape.split_outputs(step.out_types)[1]):
        full = stacked(type, shape.length)
        y = np.zeros(max(1, full.size), full.dtype)
        sweeper.bind(f"y{k}", y)
        sweeper.values[f"y_step{k}"] = type.nbytes
        ys.append(y[: full.size].reshape(full.shape))
    return ys


def run_scan(params: Any, args: Sequence[Any], event: Event = NOT_RESUMABLE) -> list[Any]:
    """A scan whose trajectory nobody needs."""
    if (done := event.results()) is not None:
        return done
    step, shape = params["step"], scan_shape(params)
    n, program = shape.any_length, to_compile(step, params)
    compiled = try_compile(
        step,
        lambda: compile_forward(program, n, in_place=True, exchanged=exchanged(params)),
        params,
    )
    if isinstance(compiled, str):
        return interpreted.run_scan(params, args, event)
    consts, init, xs = shape.split_inputs(args)
    memory = state_memory(compiled, step, shape)
    inputs = SweepInputs.of(step, shape, consts, xs)
    sweeper = Sweeper(compiled, memory, inputs, ranks_for(step, params))
    ys = _allocate_ys(sweeper, step, shape)
    at = _begin(memory, ys, init, event.point())
    with ghosts_of(params) as ghosts:
        if ghosts is not None:
            ghosts.states.begin(Carried(memory.state()))
            ghosts.serve(sweeper, {"states": (len(memory.types), memory.carried_at)})
        if at < shape.length:
            rows = np.array([[ADVANCE, at, shape.length, -1]], np.int64)
            sweeper.run_rows(rows, _forward_pause(event, memory, ys, shape.length))
    results = _outputs(memory, ys)
    event.finish(results)
    return results


def _begin(memory: StateMemory, ys: list[np.ndarray], init: Any, point: Point | None) -> int:
    """Place the first state, or that of a durable point; return its step."""
    if point is None:
        memory.place(init)
        return 0
    at = int(point.notes["step"])
    memory.place([point.arrays[f"carry{j}"] for j in range(len(memory.types))], at)
    for k, y in enumerate(ys):
        y[:at] = point.arrays[f"y{k}"]
    return at


def _forward_pause(event: Event, memory: StateMemory, ys: list[np.ndarray], n: int) -> Pause:
    """Offer a durable point: the state and the records so far."""

    def capture() -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
        at = memory.step
        arrays = {f"carry{j}": value for j, value in enumerate(memory.state())}
        arrays |= {f"y{k}": y[:at] for k, y in enumerate(ys)}
        return {"step": at}, arrays

    def pause() -> None:
        if 0 < memory.step < n:
            event.offer(capture)

    return pause


def state_memory(
    compiled: CompiledSweep,
    step: Program,
    shape: ScanShape,
    *,
    keeps_all: bool = False,
    n_slots: int = 0,
    n_buffers: int = 0,
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
        n_buffers,
    )


def run_scan_forward(
    params: Any,
    args: Sequence[Any],
    report: ScanReport,
    plan: ScanPlan,
    event: Event = NOT_RESUMABLE,
) -> list[Any]:
    """A scan that leaves a trajectory: phase 1 of the schedule."""
    step, shape = params["step"], scan_shape(params)
    program = to_compile(step, params) if plan.residuals is None else plan.residuals.forward

    def build() -> CompiledSweep:
        check_inner_bytes(step, available_bytes)
        return compile_forward(
            program,
            shape.any_length,
            in_place=plan.residuals is not None,
            exchanged=exchanged(params),
        )

    compiled = try_compile(step, build, params)
    if isinstance(compiled, str):
        report.executor = f"python ({compiled})"
        return interpreted.run_scan_forward(params, args, plan, report, event)
    track, ys = _trajectory(params, args, report, plan, compiled, event)
    if (done := event.results()) is not None:
        track.driver.rows = rows_of_rest(plan, track.driver.store, shape.length)
        track.is_complete = False
        return [*done, track]
    point = event.point()
    initial = track.driver.initial
    at = _begin(track.memory, ys, initial, point)
    if point is not None:
        report.resumed_at = f"at step {at} of {shape.length}"
        track.driver.rows = rows_from(plan, track.driver.store, shape.length, at)
        track.is_complete = False
    sweeper = track.forward
    assert sweeper is not None
    begin = time.perf_counter()
    with closed_on_error(track), ghosts_of(params) as ghosts:
        if ghosts is not None:
            ghosts.states.begin(Carried(initial))
            if point is None:
                track.memory.place(initial)
            ghosts.serve(sweeper, {"states": (len(initial), track.memory.carried_at)})
        track.driver.run_phase(sweeper, _forward_pause(event, track.memory, ys, shape.length))
    report.forward_seconds = time.perf_counter() - begin
    report.n_advances, report.n_threads = track.memory.n_advances, sweeper.n_threads
    if track.is_complete or not track.keeps_all:
        track.forward = None  # gives its work arrays back
    report.disk_wait_seconds = waited_seconds(track.driver.store)
    results = _outputs(track.memory, ys)
    event.finish(results)
    return [*results, track]


def _trajectory(
    params: Any,
    args: Sequence[Any],
    report: ScanReport,
    plan: ScanPlan,
    compiled: CompiledSweep,
    event: Event,
) -> tuple[Trajectory, list[np.ndarray]]:
    """All memory of a scan that leaves a trajectory, and its records."""
    step, shape = params["step"], scan_shape(params)
    consts, init, xs = shape.split_inputs(args)
    keeps_states = plan.choice.keeps_all and plan.residuals is None
    n_slots, n_buffers = plan.choice.n_slots, plan.choice.n_buffers
    memory = state_memory(
        compiled, step, shape, keeps_all=keeps_states, n_slots=n_slots, n_buffers=n_buffers
    )
    inputs = SweepInputs.of(step, shape, consts, xs)
    sweeper = Sweeper(compiled, memory, inputs, ranks_for(step, params))
    ys = _allocate_ys(sweeper, step, shape)
    initial = [np.asarray(a, t.dtype) for a, t in zip(init, memory.types, strict=True)]
    if "halo" in params:
        initial = [np.array(a) for a in initial]  # ghosts are written into them
    store = open_store(plan, step, memory.types, event, memory.buffers())
    arena = memory if n_buffers and plan.comm is None else None
    driver = Driver(first_rows(plan), initial, store, report, arena, plan.comm)
    track = Trajectory(step, shape, plan, memory, driver, sweeper, report)
    if plan.residuals is not None:
        track.records = _allocate_records(sweeper, plan.residuals, len(ys), shape)
    report.work_bytes = sweeper.work_bytes
    return track, ys


def _allocate_records(sweeper: Sweeper, plan: ResidualPlan, first: int, shape: ScanShape) -> Arena:
    """Memory for the residuals of all steps, as records after the ys."""
    steps = [round_up(t.nbytes) for t in plan.types]
    arena = Arena([n * shape.length for n in steps], zeroed=False)
    for k, n in enumerate(steps):
        sweeper.values[f"y{first + k}"] = arena.address(k)
        sweeper.values[f"y_step{first + k}"] = n
    return arena


def run_scan_reverse(
    params: Any,
    args: Sequence[Any],
    event: Event = NOT_RESUMABLE,
    watch: Watch | None = None,
) -> list[np.ndarray]:
    """The reverse sweep: phase 2 of the schedule."""
    track = args[0]
    done = event.results()
    if done is not None:
        track.close()
        return done
    if isinstance(track, interpreted.PythonTrajectory):
        return interpreted.run_scan_reverse(params, args, event, watch)
    try:
        return _reverse_compiled(track, params, args, event, watch)
    except NotLowerable as reason:
        if not talks_itself(params):
            raise
        track.report.executor = f"native, then python ({reason})"
        initial = track.driver.initial
        return reverse_by_python(track.plan, track.report, initial, params, args[1:], watch)


def _reverse_compiled(
    track: Trajectory, params: Any, args: Sequence[Any], event: Event, watch: Watch | None
) -> list[np.ndarray]:
    shape, point = track.shape, event.point()
    n = end = shape.length
    if point is not None:
        end = int(point.notes["end"])
        track.report.resumed_at = f"with the last {n - end} of {n} steps reversed"
    with closed_on_error(track), ghosts_of(params) as ghosts:
        sweeper, results, consts = _reverse_sweeper(track, params, args, point, end, ghosts)
        if point is not None and not _restore_all(track.plan, results, point):
            end = n
            sweeper, results, consts = _reverse_sweeper(track, params, args, None, end, ghosts)
        if end < n or not track.is_fresh:
            is_kept = track.keeps_all and track.is_complete and end == n
            store = track.driver.store
            track.driver.rows = second_rows(n) if is_kept else rows_of_rest(track.plan, store, end)
        track.is_fresh = False
        machine: Any = sweeper
        if track.keeps_all:
            machine = KeptMachine(track.forward, sweeper, track.memory)
        begin = time.perf_counter()
        if ghosts is not None:
            track.report.ghost_bytes = params["halo"].step_bytes
            _serve_reverse(ghosts, track, sweeper, results, end)
        machine = watched(machine, watch, n, end, results.seen(consts))
        track.driver.run_phase(machine, results.pause(event, consts))
    report = track.report
    report.reverse_seconds += time.perf_counter() - begin
    report.n_advances = track.memory.n_advances
    report.n_reverses += results.n_reversed
    report.work_bytes = max(report.work_bytes, sweeper.work_bytes)
    report.disk_wait_seconds = waited_seconds(track.driver.store)
    collected = results.collect(consts)
    event.finish(collected)
    return collected


def _restore_all(plan: ScanPlan, results: Cotangents, point: Point) -> bool:
    """Take the gradients of a durable point; False if a rank cannot."""
    is_restored = results.restore(point)
    return is_restored if plan.comm is None else not is_any(plan.comm, not is_restored)


def _serve_reverse(
    ghosts: Ghosts, track: Trajectory, sweeper: Sweeper, results: Cotangents, end: int
) -> None:
    """Let a reverse sweep fetch ghosts, and whatever advances for it."""
    ghosts.states.begin(Carried(track.driver.initial))
    ghosts.bars.begin(results.carried_bars.begin(end))
    served = {"bars": (len(results.rings), results.carried_bars.at)}
    states = {"states": (len(track.driver.initial), track.memory.carried_at)}
    if not track.keeps_all:
        served |= states
    elif track.forward is not None:
        ghosts.serve(track.forward, states)
    ghosts.serve(sweeper, served)


def _reverse_sweeper(
    track: Trajectory,
    params: Any,
    args: Sequence[Any],
    point: Point | None,
    end: int,
    ghosts: Ghosts | None,
) -> tuple[Sweeper, Cotangents, Sequence[Any]]:
    """The sweep that reverses, and the memory of its cotangents."""
    step, shape = track.step, track.shape
    n_primal = len(step.inputs) - shape.n_carry
    consts, xs = args[1 : 1 + shape.n_consts], args[1 + shape.n_consts : 1 + n_primal]
    bars = list(args[1 + n_primal :])
    n_bars = sum(params["active_out"][: shape.n_carry])
    if point is not None:
        bars[:n_bars] = [point.arrays[f"carry_bar{k}"] for k in range(n_bars)]
    compiled = compile_reverse_of(
        step,
        params,
        track.residuals,
        advances=not track.keeps_all,
        delays=shape.length > 0 and all(not np.any(b) for b in bars[:n_bars]),
        ghosts=ghosts,
    )
    inputs, memory = SweepInputs.of(step, shape, consts, xs), track.memory
    if track.residuals is not None:
        assert track.records is not None
        inputs.records = [
            (track.records.address(k), round_up(t.nbytes))
            for k, t in enumerate(track.residuals.types)
        ]
        memory = StateMemory(shape, (), (), shape.length, False, 0, ())
    sweeper = Sweeper(compiled, memory, inputs, ranks_for(step, params))
    fields = () if ghosts is None else params["halo"].bars
    results = Cotangents(sweeper, compiled, step, shape, consts, bars, end, fields)
    return sweeper, results, consts
