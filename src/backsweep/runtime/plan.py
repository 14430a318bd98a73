"""What a reverse sweep will need, known before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backsweep import config
from backsweep.codegen.sweep_source import find_chains
from backsweep.ir import ArrayType, Program
from backsweep.passes.external import external_steps
from backsweep.passes.residuals import ResidualPlan
from backsweep.primitives.control import ScanShape, scan_shape
from backsweep.runtime.arrays import round_up
from backsweep.runtime.checkpointing import Checkpointing, effective
from backsweep.runtime.compiled import residual_plan
from backsweep.runtime.report import Report, ScanReport
from backsweep.schedule import StoreAll, TableSchedule


def carry_types(step: Program, shape: ScanShape) -> tuple[ArrayType, ...]:
    return shape.split_inputs(step.in_types)[1]


def contiguous_bytes(step: Program, shape: ScanShape) -> int:
    """A whole trajectory, components that are handed on kept once."""
    types = carry_types(step, shape)
    return sum(
        (shape.length + len(c.components)) * round_up(types[c.components[0]].nbytes)
        for c in find_chains(step, shape.n_consts, shape.n_carry)
    )


def why_python(step: Program) -> str:
    """Why a step is not even given to the code generator; empty where it is.

    External steps must not come there: what was compiled is remembered by the step's text, in
    which two objects of one class are equal.
    """
    if config.is_jit_disabled():
        return "BACKSWEEP_NO_JIT is set"
    names = ", ".join(external_steps(step))
    return f"the step is external: {names}" if names else ""


@dataclass(frozen=True)
class ScanPlan:
    """What is known of a reverse sweep before its first step."""

    request: Checkpointing
    schedule: TableSchedule
    state_bytes: int
    residuals: ResidualPlan | None
    """Where residuals of all steps are kept instead of states."""


def plan_scan(params: Any, report: ScanReport) -> ScanPlan:
    """Choose the schedule of a scan_forward, and say so in its report."""
    step, shape = params["step"], scan_shape(params)
    request = effective(params.get("checkpointing"))
    types = carry_types(step, shape)
    state_bytes = sum(t.nbytes if request.uses_disk else round_up(t.nbytes) for t in types)
    schedule = request.choose(shape.length, state_bytes, contiguous_bytes(step, shape))
    report.schedule = type(schedule).__name__
    report.n_steps, report.n_snapshots = shape.length, schedule.n_snapshots
    report.all_bytes = shape.length * sum(t.nbytes for t in types)
    active_in = params.get("active_in")
    keeps_all = isinstance(schedule, StoreAll) and not request.uses_disk
    can_keep = keeps_all and active_in is not None and not why_python(step)
    residuals = residual_plan(step, shape, active_in) if can_keep else None
    return ScanPlan(request, schedule, state_bytes, residuals)


def predict_scan(params: Any) -> ScanReport:
    """The report of a gradient's scan that is not run: no times, no work arrays."""
    report = ScanReport()
    step, shape = params["step"], scan_shape(params)
    plan = plan_scan(params, report)
    report.n_advances, report.n_reverses = plan.schedule.n_advances, shape.length
    why = why_python(step)
    report.executor, report.n_threads = f"python ({why})" if why else "native", config.n_threads()
    if plan.residuals is not None:
        report.schedule += ", residuals instead of states"
        types: Any = plan.residuals.forward.out_types[-plan.residuals.n_residuals :]
        report.snapshot_bytes_memory = shape.length * sum(round_up(t.nbytes) for t in types)
    elif plan.request.uses_disk:
        report.snapshot_bytes_disk = plan.schedule.n_snapshots * plan.state_bytes
    elif isinstance(plan.schedule, StoreAll):
        report.snapshot_bytes_memory = contiguous_bytes(step, shape)
    else:
        report.snapshot_bytes_memory = plan.schedule.n_snapshots * plan.state_bytes
    return report


def predict(program: Program) -> Report:
    """The report of a program with gradients of scans in it, as if it had been run."""
    return Report([predict_scan(params) for params in _forward_scans(program)])


def _forward_scans(program: Program) -> Iterator[Any]:
    """Parameters of the scans that leave a trajectory, those of nested programs included."""
    for eqn in program.equations:
        if eqn.primitive.name == "scan_forward":
            yield eqn.params
        elif eqn.primitive.name == "sum_of":
            for item in eqn.params["programs"]:
                yield from _forward_scans(item)
