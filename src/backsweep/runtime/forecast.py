"""What a gradient will take: bytes from its program, seconds from a short trial.

Bytes are found by walking through the program as the evaluator does, with the values that are
alive at each equation and what the sweeps allocate besides. Seconds are measured
(`trial`). Known to be missing: temporary arrays inside single NumPy calls, and what the compiler
needs where code is not in the cache yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from backsweep.codegen.step import NotLowerable
from backsweep.codegen.sweep_source import find_chains
from backsweep.errors import BudgetError
from backsweep.ir import ArrayType, Atom, Equation, Program, Var
from backsweep.passes.partition.halo import Halo
from backsweep.primitives.control import scan_shape
from backsweep.runtime.arrays import SKEW, round_up, spare_bytes
from backsweep.runtime.checkpointing import Checkpointing, format_bytes
from backsweep.runtime.choose import Choice, choose, disk_transfers
from backsweep.runtime.compiled import compile_forward, compile_reverse, work_of
from backsweep.runtime.executor import to_compile
from backsweep.runtime.memory import available_bytes
from backsweep.runtime.plan import ScanPlan, carry_types, items_of, plan_program, why_python
from backsweep.runtime.report import ScanReport, ScanTotals
from backsweep.runtime.trial import Rates, trial


@dataclass
class ScanForecast(ScanReport):
    """A scan of a gradient that is not run.

    Attributes
    ----------
    why : str
        Why this schedule.
    rebuild_advances : int
        At most so many steps are advanced again when a stopped run goes on.
    seconds : float
        nan where nothing was measured.
    rates : Rates, optional
        Seconds of a step and of a reverse step; None where nothing was measured.
    operations : tuple of int
        Scalar operations of a step and of a reverse step; of a step that is not compiled, its
        carried values.
    step_bytes : tuple of int
        What a step and a reverse step read and write at least.
    n_transfers, transfer_bytes : int
        Snapshots written to files and read from them, and bytes of each.
    n_buffers : int
        Of disk traffic; 0: the run waits for each transfer.
    halo : Halo, optional
        Of a scan that is cut into blocks.
    alternatives : tuple of (str, str, int, float)
        Other budgets: memory, schedule, advances, seconds.
    """

    why: str = ""
    rebuild_advances: int = 0
    seconds: float = float("nan")
    rates: Rates | None = None
    operations: tuple[int, int] = (0, 0)
    step_bytes: tuple[int, int] = (0, 0)
    n_transfers: int = 0
    transfer_bytes: int = 0
    n_buffers: int = 0
    halo: Halo | None = None
    alternatives: tuple[tuple[str, str, int, float], ...] = ()


@dataclass
class Forecast(ScanTotals):
    """What a gradient will take.

    Attributes
    ----------
    scans : list of ScanForecast
    gradient_bytes : int
        What the gradient allocates at its peak.
    resident_bytes : int
        The process with it.
    available_bytes : int
        What the job may still use.
    """

    scans: list[ScanForecast]
    gradient_bytes: int
    resident_bytes: int
    available_bytes: int

    @property
    def seconds(self) -> float:
        """Seconds of all sweeps; nan where nothing was measured."""
        return sum(s.seconds for s in self.scans)

    @property
    def fits(self) -> bool:
        """Whether the gradient fits into the memory that is left."""
        return self.gradient_bytes <= self.available_bytes

    def __str__(self) -> str:
        rows = [row for k, s in enumerate(self.scans) for row in _scan_rows(k, s)]
        left = "" if self.fits else ": too little"
        rows += [
            ("gradient", f"{format_bytes(self.gradient_bytes)} at its peak"),
            ("process", f"{format_bytes(self.resident_bytes)} resident at the peak"),
            ("memory left", f"{format_bytes(self.available_bytes)} before it starts{left}"),
        ]
        if self.scans and self.seconds == self.seconds:
            rows.append(("time", f"{self.seconds:.3g} s for all sweeps, measured on trial steps"))
        return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _scan_rows(k: int, s: ScanForecast) -> list[tuple[str, str]]:
    ratio = s.n_advances / max(1, s.n_steps)
    steps, every = f"{s.n_steps} steps", f"; every state would be {format_bytes(s.all_bytes)}"
    advances = f"{s.n_advances} ({ratio:.2f} per step), {s.n_reverses} reverse steps"
    if s.n_steps < 0:
        steps, every, advances = "a loop, number of steps unknown", "", "found on the way"
    rows = [
        (f"scan {k}", f"{steps}; {s.executor}, {s.n_threads} thread(s)"),
        ("  schedule", f"{s.schedule}: {s.why}"),
        (
            "  snapshots",
            f"{s.n_snapshots}: {format_bytes(s.snapshot_bytes_memory)} in memory, "
            f"{format_bytes(s.snapshot_bytes_disk)} on disk{every}",
        ),
        ("  work arrays", format_bytes(s.work_bytes)),
        ("  advances", advances),
    ]
    if s.ghosts:
        rows.append(("  ranks", s.ghosts))
    if s.seconds == s.seconds:
        rows.append(("  time", f"{s.seconds:.3g} s"))
    if s.rebuild_advances:
        rows.append(
            ("  after a kill", f"at most {s.rebuild_advances} advances to rebuild snapshots")
        )
    for memory, schedule, n, seconds in s.alternatives:
        cost = f", {seconds:.3g} s" if seconds == seconds else ""
        rows.append((f"  with {memory}", f"{schedule}, {n} advances{cost}"))
    return rows


def forecast(program: Program, *, measure: bool = False) -> Forecast:
    """Plan a program with gradients of scans in it; nothing of it is run.

    Parameters
    ----------
    program : Program
    measure : bool
        Run some steps of each scan with made-up values, and predict seconds from them.
    """
    plans = plan_program(program)
    sweeps = _sweeps(program, plans)
    scans = [_forecast_scan(sweep, measure) for sweep in sweeps.values()]
    n_bytes = _peak(program, sweeps)
    resident = psutil.Process().memory_info().rss - spare_bytes()
    return Forecast(scans, n_bytes, resident + n_bytes, available_bytes())


@dataclass
class _Sweep:
    """A scan's two halves, planned."""

    plan: ScanPlan
    forward: Equation
    reverse: Equation | None
    forward_work: int = 0
    trajectory: int = 0
    reverse_work: int = 0
    operations: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        step, shape = self.forward.params["step"], scan_shape(self.forward.params)
        choice, demand, residuals = self.plan.choice, self.plan.demand, self.plan.residuals
        states = choice.n_slots + choice.n_buffers + 1
        self.trajectory = states * demand.slot_bytes
        if choice.keeps_all:
            self.trajectory = self.plan.report().snapshot_bytes_memory
        self.forward_work = 3 * demand.slot_bytes
        self.reverse_work = 2 * demand.slot_bytes + self._gradient_bytes()
        n_values = sum(t.size for t in carry_types(step, shape))
        self.operations = n_values, n_values
        if why_python(step):
            return
        try:
            own = to_compile(step, self.forward.params)
            program = residuals.forward if residuals is not None else own
            forward = compile_forward(program, shape.any_length, in_place=residuals is not None)
        except NotLowerable:
            return
        types = carry_types(step, shape)
        ring = sum(
            size * (round_up(types[c.components[0]].nbytes) + SKEW)
            for c, size in zip(forward.source.chains, forward.ring_sizes, strict=True)
        )
        self.forward_work = forward.work_bytes + (0 if choice.keeps_all else ring)
        self.operations = forward.work, forward.work
        if self.reverse is not None:
            p = self.reverse.params
            halo = p.get("halo")
            reverse = compile_reverse(
                own,
                shape.any_length,
                p["active_in"],
                p["active_out"],
                advances=not choice.keeps_all,
                plan=residuals,
                delays=shape.length > 0,
                adjoint=p.get("adjoint"),
                fetched=() if halo is None else halo.fetched,
            )
            bars = sum(
                size * round_up(types[c.components[0]].nbytes)
                for c, size in zip(reverse.bar_chains, reverse.bar_sizes, strict=True)
                if c.components[0] < len(types)
            )
            self.reverse_work = reverse.work_bytes + bars + self._gradient_bytes()
            if reverse.source.reverse is not None:
                self.operations = forward.work, work_of(reverse.source.reverse.step)

    def step_bytes(self) -> tuple[int, int]:
        """What a step and a reverse step move at least: each value once, what is new written.

        What a step hands on is not moved; gradients of constants are read and written.
        """
        step, shape = self.forward.params["step"], scan_shape(self.forward.params)
        types = carry_types(step, shape)
        consts, _, xs = (sum(map(_nbytes, own)) for own in shape.split_inputs(step.in_types))
        carry = sum(map(_nbytes, types))
        made = sum(
            _nbytes(types[c.components[0]])
            for c in find_chains(step, shape.n_consts, shape.n_carry)
        )
        ys = sum(map(_nbytes, step.out_types[shape.n_carry :]))
        read = consts + carry + xs
        return read + made + ys, read + ys + 2 * carry + 2 * self._gradient_bytes()

    def _gradient_bytes(self) -> int:
        """Gradients of constants add up in double precision."""
        if self.reverse is None:
            return 0
        shape = scan_shape(self.forward.params)
        types = self.forward.params["step"].in_types[: shape.n_consts]
        flags = self.reverse.params["active_in"][: shape.n_consts]
        wide = {"c": 16}
        return sum(
            t.size * wide.get(t.dtype.kind, 8) for t, a in zip(types, flags, strict=True) if a
        )


def _sweeps(program: Program, plans: Mapping[int, ScanPlan]) -> dict[int, _Sweep]:
    """All scans with a trajectory, by the id of their forward equation."""
    found: dict[int, _Sweep] = {}
    for part in (program, *items_of(program)):
        consumers = {e.inputs[0]: e for e in part.equations if "_reverse" in e.primitive.name}
        for eqn in part.equations:
            if id(eqn) in plans:
                found[id(eqn)] = _Sweep(plans[id(eqn)], eqn, consumers.get(eqn.outputs[-1]))
    return found


def _peak(program: Program, sweeps: Mapping[int, _Sweep]) -> int:
    """Bytes that the evaluation of a program allocates at its peak."""
    last: dict[Atom, int] = {}
    for position, eqn in enumerate(program.equations):
        last |= dict.fromkeys((*eqn.inputs, *eqn.outputs), position)
    last |= dict.fromkeys(program.outputs, len(program.equations))
    held: dict[Var, int] = {}
    peak = 0
    for position, eqn in enumerate(program.equations):
        own = {v: _nbytes(v.type) for v in eqn.outputs}
        during = sum(own.values())
        matching = [s for s in sweeps.values() if s.reverse is eqn]
        if id(eqn) in sweeps:
            sweep = sweeps[id(eqn)]
            # What the forward half frees waits for the reverse half.
            own[eqn.outputs[-1]] = sweep.trajectory + sweep.forward_work
            during = sum(own.values())
        elif matching:
            during += sum(s.reverse_work for s in matching)
        elif eqn.primitive.name == "sum_of":
            during += max((_peak(p, sweeps) for p in eqn.params["programs"]), default=0)
        peak = max(peak, sum(held.values()) + during)
        held |= own
        for var in [v for v in held if last[v] <= position]:
            del held[var]
    return peak


def _nbytes(type: Any) -> int:
    return type.nbytes if isinstance(type, ArrayType) else 0


def _forecast_scan(sweep: _Sweep, measure: bool) -> ScanForecast:
    shape, plan = scan_shape(sweep.forward.params), sweep.plan
    own = ScanForecast(**vars(plan.report()))
    own.n_advances, own.n_reverses = plan.schedule.n_advances, max(shape.length, 0)
    own.work_bytes = sweep.forward_work + sweep.reverse_work
    own.why = _why(plan)
    halo = sweep.reverse.params.get("halo") if sweep.reverse is not None else None
    if halo is not None:
        own.ghost_bytes, own.halo = halo.step_bytes, halo
    own.rebuild_advances = own.n_reverses if plan.request.resume else 0
    own.operations, own.step_bytes = sweep.operations, sweep.step_bytes()
    choice, demand = plan.choice, plan.demand
    own.n_buffers, own.transfer_bytes = choice.n_buffers, demand.file_bytes
    if choice.n_disk:
        own.n_transfers = round(disk_transfers(shape.length, choice.n_slots + 1, choice.n_disk))
    rates = None
    if measure and sweep.reverse is not None and own.n_reverses:
        rates = trial(sweep.forward, sweep.reverse, plan)
        own.seconds, own.rates = rates.seconds(own.n_advances, own.n_reverses), rates
    own.alternatives = _alternatives(plan, rates)
    return own


def _why(plan: ScanPlan) -> str:
    request, demand, choice = plan.request, plan.demand, plan.choice
    if demand.n_steps < 0:
        return "ends where its condition fails"
    if not isinstance(request.schedule, str) or request.schedule != "auto":
        return "asked for"
    if request.snapshots is not None:
        return f"{request.snapshots} snapshots were asked for"
    budget = format_bytes(request.memory_budget())
    if choice.keeps_all:
        return f"all states fit into {budget}"
    states = f"{choice.n_slots + 1} states of {format_bytes(demand.slot_bytes)} fit into {budget}"
    return f"{states}, {choice.n_disk} on disk" if choice.n_disk else states


def _alternatives(plan: ScanPlan, rates: Rates | None) -> tuple[tuple[str, str, int, float], ...]:
    """Half and twice the memory."""
    request, demand = plan.request, plan.demand
    if request.schedule != "auto" or request.snapshots is not None or demand.n_steps < 0:
        return ()
    rows = []
    for factor, words in ((0.5, "half the memory"), (2.0, "twice the memory")):
        memory = int(request.memory_budget() * factor)
        other = try_budget(request, plan, memory)
        if other is None:
            rows.append((words, "not even one state fits", 0, float("nan")))
            continue
        n = other.schedule.n_advances
        seconds = rates.seconds(n, demand.n_steps) if rates is not None else float("nan")
        rows.append((words, type(other.schedule).__name__, n, seconds))
    return tuple(rows)


def try_budget(request: Checkpointing, plan: ScanPlan, memory: int) -> Choice | None:
    """The choice with another budget in memory; None if nothing fits."""
    try:
        return choose(replace(request, memory=memory), plan.demand, memory, request.disk_budget())
    except BudgetError:
        return None


def sweep_budgets(program: Program, n_budgets: int) -> list[tuple[int, int, float]]:
    """(bytes, advances, seconds) of the first scan with budgets from one state to all states."""
    known = _sweeps(program, plan_program(program)).values()
    sweep = next((s for s in known if s.plan.demand.n_steps >= 0), None)
    if sweep is None:
        return []
    request, demand = sweep.plan.request, sweep.plan.demand
    request = replace(request, schedule="auto", snapshots=None, disk=None, resume=False)
    request = replace(request, directory=None, scratch=None)
    rates = trial(sweep.forward, sweep.reverse, sweep.plan) if sweep.reverse is not None else None
    rows = []
    for budget in np.geomspace(demand.slot_bytes, demand.all_bytes, n_budgets).astype(int).tolist():
        choice = try_budget(request, sweep.plan, budget + 1)
        if choice is not None:
            n = choice.schedule.n_advances
            seconds = rates.seconds(n, demand.n_steps) if rates is not None else float("nan")
            rows.append((budget, n, seconds))
    return rows
