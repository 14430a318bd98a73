"""Loops that end when a condition fails: driven online, reversed as scans are.

The compiled step computes the condition of the state that it has made, and the sweep halts where
it is false (`codegen.sweep_source`): no step is made in vain, and Python looks on between blocks
of rows only. Once the number of steps is known, what is left is the trajectory of a scan, and
`scan.run_scan_reverse` reverses it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.ir import Builder, Literal, Program
from backsweep.primitives.control import ScanShape, goes_on, scan_shape
from backsweep.primitives.shape import full
from backsweep.runtime import interpreted
from backsweep.runtime.choose import Choice, Demand
from backsweep.runtime.compiled import compile_forward
from backsweep.runtime.driver import Driver
from backsweep.runtime.executor import try_compile
from backsweep.runtime.inner import check_inner_bytes
from backsweep.runtime.journal import NOT_RESUMABLE, Event
from backsweep.runtime.memory import available_bytes
from backsweep.runtime.online import OnlineRows
from backsweep.runtime.plan import ScanPlan, carry_types
from backsweep.runtime.report import ScanReport
from backsweep.runtime.resume import rows_of_rest
from backsweep.runtime.scan import Trajectory, state_memory
from backsweep.runtime.sweeper import StateMemory, Sweeper, SweepInputs
from backsweep.runtime.traced import TracedStep
from backsweep.schedule import OnlineRun, StoreAll


def run_while(params: Any, args: Sequence[Any], event: Event = NOT_RESUMABLE) -> list[Any]:
    """A loop whose trajectory nobody needs."""
    done = event.results()
    if done is not None:
        return done
    loop = _Loop(params, args, ScanReport(), n_snapshots=1, keeps=False)
    loop.run(event)
    results = loop.results()
    event.finish(results)
    return results


def run_while_forward(
    params: Any, args: Sequence[Any], report: ScanReport, plan: ScanPlan, event: Event
) -> list[Any]:
    """A loop that leaves a trajectory: phase 1 of the schedule."""
    loop = _Loop(params, args, report, n_snapshots=plan.choice.n_slots + 1, keeps=True)
    done = event.results()
    if done is not None:
        return [*done[:-1], loop.trajectory(plan, int(done[-1]), is_at_end=False)]
    begin = time.perf_counter()
    n, is_at_end = loop.run(event)
    report.forward_seconds = time.perf_counter() - begin
    results = loop.results()
    event.finish([*results, np.array(n)])
    return [*results, loop.trajectory(plan, n, is_at_end)]


def plan_of_length(plan: ScanPlan, n: int) -> ScanPlan:
    """The plan of a loop whose number of steps was found."""
    s = plan.choice.n_slots + 1
    choice = Choice(OnlineRun(n, s), s - 1) if n else Choice(StoreAll(0), 0)
    demand = plan.demand
    found = Demand(n, demand.slot_bytes, demand.file_bytes, n * demand.slot_bytes)
    shape = dataclasses.replace(plan.shape, length=n)
    return dataclasses.replace(plan, choice=choice, demand=found, shape=shape)


def with_flag(step: Program, cond: Program, shape: ScanShape) -> Program:
    """The step that records whether the loop goes on from the state that it has made."""
    b = Builder()
    inputs = tuple(b.input(v.type, v.name) for v in step.inputs)
    carry = b.inline(step, inputs)
    (flag,) = b.inline(cond, (*inputs[: shape.n_consts], *carry))
    if isinstance(flag, Literal):
        flag = full(b, flag, ())
    return b.build([*carry, flag], step.name)


@dataclass
class _Loop:
    """One loop on one of the two machines.

    Parameters
    ----------
    n_snapshots : int
        The initial state included.
    keeps : bool
        Whether states are needed after the loop.
    """

    params: Any
    args: Sequence[Any]
    report: ScanReport
    n_snapshots: int
    keeps: bool

    def __post_init__(self) -> None:
        self.step, self.shape = self.params["step"], scan_shape(self.params)
        self.types = carry_types(self.step, self.shape)
        self.consts, init, _ = self.shape.split_inputs(self.args)
        self.initial = [np.array(a, t.dtype) for a, t in zip(init, self.types, strict=True)]
        program = with_flag(self.step, self.params["cond"], self.shape)

        def build() -> Any:
            check_inner_bytes(program, available_bytes)
            return compile_forward(
                program, self.shape.any_length, in_place=not self.keeps, halts=True
            )

        compiled = try_compile(program, build, self.params)
        self.memory: StateMemory | None = None
        self.machine: Any
        if isinstance(compiled, str):
            self.report.executor = f"python ({compiled})"
            runner = TracedStep(self.step, self.shape, self.consts)
            self.machine = interpreted.PythonMachine(runner, (), [], self.initial)
            self.machine.goes_on = lambda state: goes_on(self.params, self.consts, state, -1)
            return
        self.memory = state_memory(compiled, self.step, self.shape, n_slots=self.n_snapshots - 1)
        inputs = SweepInputs.of(self.step, self.shape, self.consts, ())
        self.machine = Sweeper(compiled, self.memory, inputs)
        self.machine.bind("flags", np.zeros(128, np.uint8))
        self.report.work_bytes = self.machine.work_bytes

    def position(self) -> tuple[int, bool]:
        """Step of the state in work, and whether the loop is over."""
        if self.memory is not None:
            return self.memory.step, self.memory.is_over
        return self.machine.at, self.machine.is_over

    def run(self, event: Event) -> tuple[int, bool]:
        """All steps; their number, and whether the state before the last one is in work too."""
        at, state, point = 0, self.initial, event.point()
        if point is not None:
            at = int(point.notes["step"])
            state = [np.asarray(point.arrays[f"carry{j}"]) for j in range(len(self.types))]
            self.report.resumed_at = f"at step {at} of a loop"
        for place, value in zip(self.machine.begin_load(at), state, strict=True):
            place[...] = value
        self.rows = OnlineRows(self.n_snapshots, self.position, self.params["max_steps"], at)
        self.driver = Driver(self.rows, self.initial, None, self.report)
        if not goes_on(self.params, self.consts, state, at):
            self.rows.n_steps = at
            return at, at == 0

        def capture() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            arrays = {f"carry{j}": value for j, value in enumerate(self.machine.state())}
            return {"step": self.position()[0]}, arrays

        self.driver.run_phase(self.machine, lambda: event.offer(capture))
        n = self.rows.n_steps
        assert n is not None
        return n, True

    def results(self) -> list[Any]:
        """The last carry."""
        return [np.array(a) for a in self.machine.state()]

    def trajectory(self, plan: ScanPlan, n: int, is_at_end: bool) -> Any:
        """What reverses the loop, now that its number of steps is known."""
        plan = plan_of_length(plan, n)
        shape = plan.shape
        report = self.report
        report.schedule, report.n_steps = "Online", n
        report.all_bytes = n * plan.demand.file_bytes
        if not is_at_end:
            rows = rows_of_rest(plan, None, n)
            self.driver = Driver(rows, self.initial, None, report)
        if self.memory is None:
            runner, report.n_advances = self.machine.step, self.machine.n_advances
            runner.shape, self.machine.goes_on = shape, None
            return interpreted.PythonTrajectory(runner, plan, self.driver, self.machine, report)
        report.n_advances = self.memory.n_advances
        report.n_threads = self.machine.n_threads
        return Trajectory(self.step, shape, plan, self.memory, self.driver, None, report)
