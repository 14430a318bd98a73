"""What a reverse sweep will need, known before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backsweep import config
from backsweep.codegen.step import NotLowerable
from backsweep.codegen.sweep_source import find_chains
from backsweep.comm import AbstractComm
from backsweep.ir import ArrayType, Equation, Program
from backsweep.passes.external import all_equations, external_steps
from backsweep.passes.residuals import ResidualPlan
from backsweep.primitives.control import ScanShape, scan_shape
from backsweep.runtime.arrays import round_up
from backsweep.runtime.checkpointing import Checkpointing, effective
from backsweep.runtime.choose import MOST_ONLINE, Choice, Demand, share
from backsweep.runtime.compiled import compile_forward, residual_plan, threads_for
from backsweep.runtime.report import ScanReport
from backsweep.runtime.talking import ranks_of, talks_itself
from backsweep.schedule import AbstractSchedule

FORWARD = ("scan_forward", "while_forward")
"""Names of what leaves a trajectory."""


def carry_types(step: Program, shape: ScanShape) -> tuple[ArrayType, ...]:
    return shape.split_inputs(step.in_types)[1]


def contiguous_bytes(step: Program, shape: ScanShape) -> int:
    """A whole trajectory, components that are handed on kept once."""
    types = carry_types(step, shape)
    return sum(
        (shape.length + len(c.components)) * round_up(types[c.components[0]].nbytes)
        for c in find_chains(step, shape.n_consts, shape.n_carry)
    )


def _residual_bytes(plan: ResidualPlan) -> int:
    """Of a step, in the trajectory."""
    return sum(round_up(t.nbytes) for t in plan.types)


def why_python(step: Program) -> str:
    """Why a step is not even given to the code generator; empty where it is.

    External steps must not come there: what was compiled is remembered by the step's text, in
    which two objects of one class are equal.
    """
    if config.is_jit_disabled():
        return "BACKSWEEP_NO_JIT is set"
    if any(e.primitive.name.startswith("while_") for e in all_equations(step)):
        return "there is a while_loop inside the step"
    names = ", ".join(external_steps(step))
    return f"the step is external: {names}" if names else ""


@dataclass(frozen=True)
class ScanPlan:
    """What is known of a reverse sweep before its first step."""

    request: Checkpointing
    choice: Choice
    demand: Demand
    residuals: ResidualPlan | None
    """Where residuals of all steps are kept instead of states."""
    step: Program
    shape: ScanShape
    comm: AbstractComm | None = None
    """Of the ranks that run blocks of it, under this one plan."""

    @property
    def schedule(self) -> AbstractSchedule:
        return self.choice.schedule

    def report(self) -> ScanReport:
        """What is known without running it."""
        choice, demand, shape = self.choice, self.demand, self.shape
        why = why_python(self.step)
        report = ScanReport(
            schedule=type(self.schedule).__name__ if shape.length >= 0 else "Online",
            n_steps=shape.length,
            n_snapshots=self.schedule.n_snapshots,
            all_bytes=max(shape.length, 0) * demand.file_bytes,
            snapshot_bytes_disk=choice.n_disk * demand.file_bytes,
            executor=f"python ({why})" if why else "native",
            n_threads=config.n_threads(),
        )
        if self.residuals is not None:
            report.schedule += ", residuals instead of states"
            report.snapshot_bytes_memory = shape.length * _residual_bytes(self.residuals)
        elif choice.keeps_all:
            report.snapshot_bytes_memory = demand.all_bytes
        else:
            n_states = choice.n_slots + 1 + choice.n_buffers
            report.snapshot_bytes_memory = n_states * demand.slot_bytes
        return report


SECONDS_PER_OPERATION = 2e-11
"""Of a scalar operation of a compiled step on one thread: 1.3e-11 to 2.8e-11 (decision 0014)."""


def _advance_seconds(step: Program, shape: ScanShape) -> float:
    if why_python(step):
        return float("inf")
    try:
        work = compile_forward(step, shape.any_length, in_place=False).work
    except NotLowerable:
        return float("inf")
    return work * SECONDS_PER_OPERATION / threads_for(work, config.n_threads())


def demand_of(params: Any) -> Demand:
    """What the trajectory of a scan_forward may take."""
    step, shape = params["step"], scan_shape(params)
    uses_disk = effective(params.get("checkpointing")).uses_disk
    types = carry_types(step, shape)
    slot_bytes = sum(round_up(t.nbytes) for t in types)
    is_known = shape.length >= 0
    return Demand(
        shape.length,
        slot_bytes,
        sum(t.nbytes for t in types),
        contiguous_bytes(step, shape) if is_known else MOST_ONLINE * slot_bytes,
        _advance_seconds(step, shape) if uses_disk and not talks_itself(params) else float("inf"),
    )


def plan_scan(params: Any, choice: Choice, demand: Demand) -> ScanPlan:
    """The plan of a scan_forward whose schedule is chosen."""
    step, shape = params["step"], scan_shape(params)
    is_kept = choice.keeps_all and not (why_python(step) or talks_itself(params))
    residuals = _residuals(params) if is_kept else None
    if residuals is not None and shape.length * _residual_bytes(residuals) > choice.memory:
        residuals = None
    comm = ranks_of(params)
    if comm is not None and not all(comm.allgather(residuals is not None)):
        residuals = None
    request = effective(params.get("checkpointing"))
    return ScanPlan(request, choice, demand, residuals, step, shape, comm)


def _residuals(params: Any) -> ResidualPlan | None:
    """What may be kept of a step instead of its state, in compiled code."""
    step, shape, halo = params["step"], scan_shape(params).any_length, params.get("halo")
    if "active_in" not in params:
        return None
    if halo is None:
        return residual_plan(step, shape, params["active_in"])
    # A collective that one rank computes again and another one keeps would wait for ever.
    if halo.adds_up or "adjoint" not in params:
        return None
    flags = params["active_in"], params["active_out"]
    return residual_plan(step, shape, *flags, adjoint=params["adjoint"])


def plan_program(program: Program) -> dict[int, ScanPlan]:
    """Plans of all scans in a program that leave a trajectory, by the id of their equation.

    Scans with equal requests share one budget: those of the program as far as they are alive
    together, those of the items of a sum for one item at a time.
    """
    alive: list[Equation] = []
    groups = _alive_together(program)
    items = [
        [e for e in item.equations if e.primitive.name in FORWARD] for item in items_of(program)
    ]
    if items or len(groups) < 2:
        alive = [e for group in groups for e in group]
    else:
        items = groups
    every = (*alive, *(e for item in items for e in item))
    requests = list(dict.fromkeys(_request(e) for e in every))
    found: dict[int, tuple[Choice, Demand]] = {}
    for request in requests:
        own = [e for e in alive if _request(e) == request]
        own_items = [[e for e in item if _request(e) == request] for item in items]
        demands = [[demand_of(e.params) for e in group] for group in (own, *own_items)]
        choices = share(request, demands[0], demands[1:])
        equations = (*own, *(e for item in own_items for e in item))
        flat = (d for group in demands for d in group)
        for eqn, choice, demand in zip(equations, choices, flat, strict=True):
            found[id(eqn)] = choice, demand
    # In the order of the program: requests, which may be other ones on each rank, have none.
    plans: dict[int, ScanPlan] = {}
    for eqn in every:
        choice, demand = found[id(eqn)]
        plans[id(eqn)] = plan_scan(eqn.params, _agreed(eqn.params, choice), demand)
    return plans


def _alive_together(program: Program) -> list[list[Equation]]:
    """Scans that leave a trajectory, in groups: each is over before the next one begins."""
    last = {a: i for i, e in enumerate(program.equations) for a in e.inputs}
    groups: list[list[Equation]] = []
    end = -1
    for i, eqn in enumerate(program.equations):
        if eqn.primitive.name in FORWARD:
            if i > end:
                groups.append([])
            groups[-1].append(eqn)
            is_kept = eqn.outputs[-1] in program.outputs
            end = len(program.equations) if is_kept else max(end, last.get(eqn.outputs[-1], i))
    return groups


def _agreed(params: Any, choice: Choice) -> Choice:
    """Of a scan that ranks run together: the choice of the rank that can keep least, for all."""
    comm = ranks_of(params)
    if comm is None:
        return choice
    every: list[Choice] = comm.allgather(choice)
    return min(every, key=lambda c: (c.keeps_all, c.n_slots + c.n_disk, c.n_slots))


def _request(eqn: Equation) -> Checkpointing:
    return effective(eqn.params.get("checkpointing"))


def items_of(program: Program) -> Iterator[Program]:
    """Programs of which one at a time is run: the items of sums, to any depth."""
    for eqn in program.equations:
        if eqn.primitive.name == "sum_of":
            for item in eqn.params["programs"]:
                yield item
                yield from items_of(item)
