"""The Python executor: runs any step under any schedule.

A step that cannot be compiled (or with BACKSWEEP_NO_JIT=1) is run by the reference
interpreter; so is one that calls a user's own step (`primitives.external`).
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.ir import Program
from backsweep.passes import vjp_program
from backsweep.primitives.control import ScanShape, scan_shape, stacked
from backsweep.runtime.report import ScanReport
from backsweep.runtime.snapshots import close_store, closed_on_error, open_store
from backsweep.schedule import AbstractSchedule
from backsweep.schedule.actions import Advance, Discard, Load, Reverse, Store
from backsweep.storage import AbstractStore

State = list[np.ndarray]


@dataclass
class TracedStep:
    """A step, run by the reference interpreter."""

    step: Program
    shape: ScanShape
    consts: Sequence[Any]
    active_in: tuple[bool, ...] = ()
    active_out: tuple[bool, ...] = ()
    _vjp: Program | None = None

    def advance(self, n: int, state: State, x: Sequence[Any]) -> tuple[State, list[Any]]:
        """Step n forward: the next state and the records."""
        from backsweep.runtime.execute import run_program

        with self._noting(n):
            outputs = run_program(self.step, [*self.consts, *state, *x])
        carry, ys = self.shape.split_outputs(outputs)
        return [np.array(c) for c in carry], list(ys)

    def reverse(
        self, n: int, state: State, x: Sequence[Any], state_bar: State, y_bar: Sequence[Any]
    ) -> tuple[State, list[Any], list[Any]]:
        """Step n backward from the state before it: state_bar, x_bar, consts_bar."""
        from backsweep.runtime.execute import run_program

        if self._vjp is None:
            self._vjp = vjp_program(self.step, self.active_in, self.active_out)
        with self._noting(n):
            results = run_program(self._vjp, [*self.consts, *state, *x, *state_bar, *y_bar])
        consts, carry, _ = self.shape.split_inputs(self.active_in)
        a, c = sum(consts), sum(consts) + sum(carry)
        return results[a:c], results[c:], results[:a]

    @contextlib.contextmanager
    def _noting(self, n: int) -> Iterator[None]:
        """An exception out of the step says in which step it was raised."""
        try:
            yield
        except Exception as error:
            error.add_note(f"in step {n} of a scan of {self.shape.length} steps")
            raise


@dataclass
class PythonTrajectory:
    """Snapshots of a scan that Python runs."""

    step: TracedStep
    schedule: AbstractSchedule
    initial: State
    xs: Sequence[Any]
    report: ScanReport
    store: AbstractStore
    actions: Any = None
    state: State = field(default_factory=list)
    previous: State = field(default_factory=list)
    at: int = 0

    def __post_init__(self) -> None:
        self._stop = weakref.finalize(self, close_store, self.store)

    def close(self) -> None:
        """Remove the snapshots."""
        self._stop()

    def forward_phase(self, ys: list[list[Any]] | None) -> None:
        """Run the schedule up to the state after the last step."""
        self.actions = self.schedule.actions()
        self.state, self.at = self.initial, 0
        for action in self.actions:
            self._execute(action, ys)
            if isinstance(action, Advance) and action.stop == self.schedule.n_steps:
                return

    def _execute(self, action: Any, ys: list[list[Any]] | None) -> None:
        match action:
            case Advance(start, stop):
                for n in range(start, stop):
                    self.previous = self.state
                    self.state, y = self.step.advance(n, self.state, [x[n] for x in self.xs])
                    for k, value in enumerate(y if ys is not None else []):
                        ys[k].append(np.array(value))  # type: ignore[index]
                self.at = stop
                self.report.n_advances += stop - start
            case Store(step, _):
                self.store.put(step, self.state)
            case Load(step, _):
                self.state, self.at = [np.empty_like(a) for a in self.initial], step
                self.store.get(step, self.state)
            case Discard(step, _):
                self.store.delete(step)


def run_scan(params: Any, args: Sequence[Any]) -> list[Any]:
    """A scan without a trajectory."""
    step, shape = params["step"], scan_shape(params)
    consts, carry, xs = shape.split_inputs(list(args))
    runner = TracedStep(step, shape, consts)
    ys: list[list[Any]] = [[] for _ in range(len(step.outputs) - shape.n_carry)]
    state = [np.array(c) for c in carry]
    for n in range(shape.length):
        state, y = runner.advance(n, state, [x[n] for x in xs])
        for collected, value in zip(ys, y, strict=True):
            collected.append(np.array(value))
    return [*state, *_stacked(ys, step, shape)]


def _stacked(ys: list[list[Any]], step: Program, shape: ScanShape) -> list[np.ndarray]:
    types = [stacked(t, shape.length) for t in shape.split_outputs(step.out_types)[1]]
    return [
        np.stack(y) if y else np.zeros(t.shape, t.dtype) for y, t in zip(ys, types, strict=True)
    ]


def run_scan_forward(
    params: Any, args: Sequence[Any], schedule: AbstractSchedule, request: Any, report: ScanReport
) -> list[Any]:
    """Phase 1 of the schedule."""
    step, shape = params["step"], scan_shape(params)
    consts, carry, xs = shape.split_inputs(list(args))
    runner = TracedStep(step, shape, consts)
    types = shape.split_inputs(step.in_types)[1]
    initial = [np.array(c, t.dtype) for c, t in zip(carry, types, strict=True)]
    store = open_store(request, step, types, schedule.n_snapshots)
    track = PythonTrajectory(runner, schedule, initial, xs, report, store)
    ys: list[list[Any]] = [[] for _ in range(len(step.outputs) - shape.n_carry)]
    begin = time.perf_counter()
    with closed_on_error(track):
        track.forward_phase(ys)
    report.forward_seconds = time.perf_counter() - begin
    state_bytes = sum(np.asarray(c).nbytes for c in carry)
    if request.uses_disk:
        report.snapshot_bytes_disk = schedule.n_snapshots * state_bytes
    else:
        report.snapshot_bytes_memory = schedule.n_snapshots * state_bytes
    return [*track.state, *_stacked(ys, step, shape), track]


def run_scan_reverse(params: Any, args: Sequence[Any]) -> list[Any]:
    """Phase 2 of the schedule."""
    track: PythonTrajectory = args[0]
    runner = track.step
    shape, step = runner.shape, runner.step
    runner.active_in, runner.active_out = params["active_in"], params["active_out"]
    runner._vjp = None
    n_primal = len(step.inputs) - shape.n_carry
    bars = args[1 + n_primal :]
    consts, carry, xs = shape.split_inputs(runner.active_in)
    n_carry = sum(carry)
    sweep = _ReverseState([np.array(b) for b in bars[:n_carry]], bars[n_carry:], [], [])
    begin = time.perf_counter()
    with closed_on_error(track):
        if track.actions is None:
            track.forward_phase(None)
        # Taken away first: a sweep that breaks off must not be continued by the next one.
        actions, track.actions = track.actions, None
        for action in actions:
            if isinstance(action, Reverse):
                for n in range(action.stop - 1, action.start - 1, -1):
                    _reverse_step(track, sweep, n)
            else:
                track._execute(action, None)
    track.report.reverse_seconds += time.perf_counter() - begin
    return _collect(runner, sweep, (consts, carry, xs))


@dataclass
class _ReverseState:
    state_bar: State
    y_bars: Sequence[Any]
    const_bars: list[np.ndarray]
    x_bars: list[list[np.ndarray]]


def _reverse_step(track: PythonTrajectory, sweep: _ReverseState, n: int) -> None:
    state = track.state if track.at == n else track.previous
    x = [x[n] for x in track.xs]
    y_bar = [y[n] for y in sweep.y_bars]
    state_bar, x_bar, const_bar = track.step.reverse(n, state, x, sweep.state_bar, y_bar)
    sweep.state_bar = [np.array(b) for b in state_bar]
    sweep.x_bars.append([np.array(b) for b in x_bar])
    wide = [
        np.asarray(b).astype(np.result_type(np.asarray(b).dtype, np.float64)) for b in const_bar
    ]
    if not sweep.const_bars:
        sweep.const_bars = wide
    else:
        sweep.const_bars = [t + b for t, b in zip(sweep.const_bars, wide, strict=True)]
    track.report.n_reverses += 1


def _collect(runner: TracedStep, sweep: _ReverseState, active: Any) -> list[Any]:
    types = runner.shape.split_inputs(runner.step.in_types)
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
