"""The Python executor: runs any step under any schedule.

A step that cannot be compiled (or with BACKSWEEP_NO_JIT=1) is run by the reference
interpreter; so is one that calls a user's own step (`primitives.external`).
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.ir import Program
from backsweep.primitives.control import ScanShape, scan_shape, stacked
from backsweep.runtime.choose import Choice
from backsweep.runtime.driver import Driver, Pause
from backsweep.runtime.ghosts import Carried, Ghosts, ghosts_of
from backsweep.runtime.journal import Event, Point
from backsweep.runtime.pace import AbstractPace, OwnPace, SharedPace
from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.report import ScanReport
from backsweep.runtime.resume import first_rows, rows_from, rows_of_rest
from backsweep.runtime.snapshots import close_store, closed_on_error, open_store, waited_seconds
from backsweep.runtime.traced import State, TracedStep
from backsweep.runtime.watch import Cotangent, Watch, watched
from backsweep.schedule import ADVANCE, LOAD, REVERSE, STORE, Binomial


@dataclass
class PythonMachine:
    """States as lists of arrays; a slot of the arena is an entry of a dictionary."""

    step: TracedStep
    xs: Sequence[Any]
    ys: list[list[Any]]
    current: State = field(default_factory=list)
    previous: State = field(default_factory=list)
    at: int = 0
    slots: dict[int, State] = field(default_factory=dict)
    sweep: _ReverseState | None = None
    n_advances: int = 0
    goes_on: Callable[[State], bool] | None = None
    """Of a loop: looked at after each step of the forward phase."""
    is_over: bool = False
    ghosts: Ghosts | None = None
    """Of blocks of a grid."""
    pace: AbstractPace = field(default_factory=lambda: OwnPace(1))

    def use(self, ghosts: Ghosts | None) -> None:
        """Fetch these after each step, and pause when the other ranks do."""
        self.ghosts = ghosts
        if ghosts is not None:
            self.pace = SharedPace(1, ghosts.comm)

    def run_rows(self, rows: np.ndarray, pause: Pause) -> None:
        for kind, start, stop, slot in rows.tolist():
            if kind == ADVANCE:
                for n in range(start, stop):
                    begin = time.perf_counter()
                    self._advance(n)
                    if self.pace.spent(1, time.perf_counter() - begin):
                        pause()
                    if self.goes_on is not None and not self.goes_on(self.current):
                        self.is_over = True
                        return
            elif kind == REVERSE:
                for n in range(stop - 1, start - 1, -1):
                    begin = time.perf_counter()
                    self._reverse(n)
                    if self.pace.spent(1, time.perf_counter() - begin):
                        pause()
            elif kind == STORE:
                self.slots[slot] = self.current if self.at == start else self.previous
            elif kind == LOAD:
                self.current, self.at = self.slots[slot], start
            else:
                del self.slots[slot]

    def state(self) -> State:
        return self.current

    def begin_load(self, step: int) -> State:
        types = self.step.carry_types
        self.current, self.at = [np.empty(t.shape, t.dtype) for t in types], step
        return self.current

    def _advance(self, n: int) -> None:
        self.previous = self.current
        self.current, y = self.step.advance(n, self.current, [x[n] for x in self.xs])
        if self.ghosts is not None:
            self.ghosts.states.step(Carried(self.current))()
        self.at = n + 1
        self.n_advances += 1
        if self.sweep is None:
            for collected, value in zip(self.ys, y, strict=True):
                collected.append(np.array(value))

    def _reverse(self, n: int) -> None:
        assert self.sweep is not None
        state = self.current if self.at == n else self.previous
        sweep = self.sweep
        x, y_bar = [x[n] for x in self.xs], [y[n] for y in sweep.y_bars]
        state_bar, x_bar, const_bar = self.step.reverse(n, state, x, sweep.state_bar, y_bar)
        sweep.add(n, state_bar, x_bar, const_bar)
        if self.ghosts is not None:
            self.ghosts.bars.step(Carried(sweep.state_bar))()


@dataclass
class PythonTrajectory:
    """What a forward scan that Python runs leaves for its reverse sweep."""

    step: TracedStep
    plan: ScanPlan
    driver: Driver
    machine: PythonMachine
    report: ScanReport
    is_fresh: bool = True
    is_finite: bool = True
    """Whether the forward sweep's results were."""

    def __post_init__(self) -> None:
        store = self.driver.store
        self._stop = weakref.finalize(self, close_store, store) if store is not None else None

    def close(self) -> None:
        """Remove the snapshots."""
        if self._stop is not None:
            self._stop()


def run_scan(params: Any, args: Sequence[Any], event: Event) -> list[Any]:
    """A scan without a trajectory."""
    step, shape = params["step"], scan_shape(params)
    consts, carry, xs = shape.split_inputs(list(args))
    runner = TracedStep(step, shape, consts)
    ys: list[list[Any]] = [[] for _ in range(len(step.outputs) - shape.n_carry)]
    machine = PythonMachine(runner, xs, ys, [np.array(c) for c in carry])
    at = _begin(machine, event.point())
    with ghosts_of(params) as machine.ghosts:
        if machine.ghosts is not None:
            machine.ghosts.states.begin(Carried(machine.current))
        rows = np.array([[ADVANCE, at, shape.length, -1]], np.int64)
        machine.run_rows(rows, _forward_pause(machine, step, shape, event))
    results = [*machine.current, *_stacked(ys, step, shape)]
    event.finish(results)
    return results


def _begin(machine: PythonMachine, point: Point | None) -> int:
    """Take the state of a durable point, if there is one, and its records; the step."""
    if point is not None:
        machine.at = int(point.notes["step"])
        machine.current = [point.arrays[f"carry{j}"] for j in range(len(machine.current))]
        for k, collected in enumerate(machine.ys):
            collected.extend(point.arrays[f"y{k}"])
    return machine.at


def _stacked(ys: list[list[Any]], step: Program, shape: ScanShape) -> list[np.ndarray]:
    types = [stacked(t, shape.length) for t in shape.split_outputs(step.out_types)[1]]
    return [
        np.stack(y) if y else np.zeros(t.shape, t.dtype) for y, t in zip(ys, types, strict=True)
    ]


def run_scan_forward(
    params: Any, args: Sequence[Any], plan: ScanPlan, report: ScanReport, event: Event
) -> list[Any]:
    """Phase 1 of the schedule."""
    step, shape = params["step"], scan_shape(params)
    consts, carry, xs = shape.split_inputs(list(args))
    runner = TracedStep(step, shape, consts)
    plan = _stored_one_by_one(plan)
    initial = [np.array(c, t.dtype) for c, t in zip(carry, runner.carry_types, strict=True)]
    store = open_store(plan, step, runner.carry_types, event)
    ys: list[list[Any]] = [[] for _ in range(len(step.outputs) - shape.n_carry)]
    machine = PythonMachine(runner, xs, ys, initial)
    driver = Driver(first_rows(plan), initial, store, report, comm=plan.comm)
    track = PythonTrajectory(runner, plan, driver, machine, report)
    done = event.results()
    if done is not None:
        track.driver.rows = rows_of_rest(plan, store, shape.length)
        return [*done, track]
    point = event.point()
    if point is not None:
        at = _begin(machine, point)
        report.resumed_at = f"at step {at} of {shape.length}"
        track.driver.rows = rows_from(plan, store, shape.length, at)
    begin = time.perf_counter()
    with closed_on_error(track), ghosts_of(params) as ghosts:
        machine.use(ghosts)
        if ghosts is not None:
            ghosts.states.begin(Carried(initial))
        track.driver.run_phase(machine, _forward_pause(machine, step, shape, event))
    report.forward_seconds = time.perf_counter() - begin
    report.n_advances = machine.n_advances
    report.disk_wait_seconds = waited_seconds(store)
    results = [*machine.current, *_stacked(ys, step, shape)]
    event.finish(results)
    return [*results, track]


def _stored_one_by_one(plan: ScanPlan) -> ScanPlan:
    """Where all states are kept: each is a snapshot, for here is no contiguous trajectory."""
    if not plan.choice.keeps_all:
        return plan
    n = plan.schedule.n_steps
    choice = Choice(Binomial(n, max(n - 1, 1)), max(n - 2, 0))
    return dataclasses.replace(plan, choice=choice, residuals=None)


def _forward_pause(machine: PythonMachine, step: Program, shape: ScanShape, event: Event) -> Pause:
    def capture() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {f"carry{j}": a for j, a in enumerate(machine.current)}
        short = dataclasses.replace(shape, length=machine.at)
        arrays |= {f"y{k}": a for k, a in enumerate(_stacked(machine.ys, step, short))}
        return {"step": machine.at}, arrays

    def pause() -> None:
        if 0 < machine.at < shape.length:
            event.offer(capture)

    return pause


def run_scan_reverse(
    params: Any, args: Sequence[Any], event: Event, watch: Watch | None = None
) -> list[Any]:
    """Phase 2 of the schedule."""
    track: PythonTrajectory = args[0]
    runner, machine = track.step, track.machine
    shape, step = runner.shape, runner.step
    runner.active_in, runner.active_out = params["active_in"], params["active_out"]
    runner.adjoint = params.get("adjoint")
    bars = args[1 + len(step.inputs) - shape.n_carry :]
    n_carry = sum(shape.split_inputs(runner.active_in)[1])
    n = end = shape.length
    sweep = _ReverseState([np.array(b) for b in bars[:n_carry]], bars[n_carry:], end)
    point = event.point()
    if point is not None:
        end = int(point.notes["end"])
        track.report.resumed_at = f"with the last {n - end} of {n} steps reversed"
        sweep.restore(point, n)
    if end < n or not track.is_fresh:
        track.driver.rows = rows_of_rest(track.plan, track.driver.store, end)
    track.is_fresh = False
    machine.sweep, before = sweep, machine.n_advances
    begin = time.perf_counter()
    with closed_on_error(track), ghosts_of(params) as ghosts:
        machine.use(ghosts)
        if ghosts is not None:
            track.report.ghost_bytes = params["halo"].step_bytes
            ghosts.states.begin(Carried(track.driver.initial))
            ghosts.bars.begin(Carried(sweep.state_bar))
        seen = watched(machine, watch, n, end, sweep.seen())
        track.driver.run_phase(seen, sweep.pause(event))
    track.report.reverse_seconds += time.perf_counter() - begin
    track.report.n_advances += machine.n_advances - before
    track.report.n_reverses += end
    track.report.disk_wait_seconds = waited_seconds(track.driver.store)
    results = _collect(runner, sweep)
    event.finish(results)
    return results


@dataclass
class _ReverseState:
    """Cotangents of a reverse sweep."""

    state_bar: State
    y_bars: Sequence[Any]
    end: int
    """The steps from this one on are reversed."""
    const_bars: list[np.ndarray] = field(default_factory=list)
    x_bars: list[list[np.ndarray]] = field(default_factory=list)
    """Of the steps from the last one down."""

    def add(self, n: int, state_bar: Any, x_bar: Any, const_bar: Any) -> None:
        """Take what the reverse of step n gave."""
        self.end = n
        self.state_bar = [np.array(b) for b in state_bar]
        self.x_bars.append([np.array(b) for b in x_bar])
        wide = [
            np.asarray(b).astype(np.result_type(np.asarray(b).dtype, np.float64)) for b in const_bar
        ]
        if not self.const_bars:
            self.const_bars = wide
        else:
            self.const_bars = [t + b for t, b in zip(self.const_bars, wide, strict=True)]

    def pause(self, event: Event) -> Pause:
        """Offer a durable point."""

        def capture() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            arrays = {f"carry_bar{k}": b for k, b in enumerate(self.state_bar)}
            arrays |= {f"const_bar{k}": b for k, b in enumerate(self.const_bars)}
            for k, rows in enumerate(zip(*reversed(self.x_bars), strict=True)):
                arrays[f"x_bar{k}"] = np.stack(rows)
            return {"end": self.end, "n_const_bars": len(self.const_bars)}, arrays

        def pause() -> None:
            if self.end > 0:
                event.offer(capture)

        return pause

    def seen(self) -> Cotangent:
        """What a watch may look at while the sweep is under way."""

        def gradients(start: int, stop: int) -> tuple[list[Any], list[Any]]:
            rows = self.x_bars[start - stop :]
            return [[b] for b in self.const_bars], [list(x) for x in zip(*rows, strict=True)]

        return Cotangent(lambda at: self.state_bar, gradients)

    def restore(self, point: Point, n: int) -> None:
        """Go on from a durable point."""
        end, arrays = int(point.notes["end"]), point.arrays
        self.state_bar = [np.array(arrays[f"carry_bar{k}"]) for k in range(len(self.state_bar))]
        n_consts = int(point.notes["n_const_bars"])
        self.const_bars = [np.array(arrays[f"const_bar{k}"]) for k in range(n_consts)]
        stacks = [arrays[f"x_bar{k}"] for k in range(sum(k.startswith("x_bar") for k in arrays))]
        self.x_bars = [[x[i] for x in stacks] for i in reversed(range(n - end))]
        self.end = end


def _collect(runner: TracedStep, sweep: _ReverseState) -> list[Any]:
    types = runner.shape.split_inputs(runner.step.in_types)
    active = runner.shape.split_inputs(runner.active_in)
    wanted = [
        [t for t, a in zip(ts, flags, strict=True) if a]
        for ts, flags in zip(types, active, strict=True)
    ]
    const_bars = sweep.const_bars or [np.zeros(t.shape, t.dtype) for t in wanted[0]]
    results: list[Any] = [
        np.asarray(b).reshape(t.shape).astype(t.dtype)
        for b, t in zip(const_bars, wanted[0], strict=True)
    ]
    results += sweep.state_bar
    for k, t in enumerate(wanted[2]):
        steps = [row[k] for row in reversed(sweep.x_bars)]
        full = stacked(t, runner.shape.length)
        results.append(np.stack(steps) if steps else np.zeros(full.shape, full.dtype))
    return results
