"""Runs programs: NumPy outside of scans, compiled sweeps for scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.comm.collectives import kept_exchanges
from backsweep.errors import ScheduleError
from backsweep.ir import Equation, Program, evaluate
from backsweep.passes import jvp_program, vjp_program
from backsweep.passes.control import jvp_cond, jvp_step
from backsweep.primitives.control import scan_shape, tree_sum
from backsweep.runtime import adjoint, finite, stop
from backsweep.runtime.journal import (
    NOT_RESUMABLE,
    AbstractJournal,
    Event,
    NoJournal,
    journal_of,
)
from backsweep.runtime.loop import run_while, run_while_forward
from backsweep.runtime.plan import ScanPlan, plan_program
from backsweep.runtime.report import Report
from backsweep.runtime.scan import run_scan, run_scan_forward, run_scan_reverse
from backsweep.runtime.talking import talks, together
from backsweep.runtime.together import Blocks
from backsweep.runtime.watch import entered_scan


def run_program(
    program: Program,
    arguments: Sequence[Any],
    report: Report | None = None,
    *,
    is_resumable: bool = False,
    blocks: Blocks | None = None,
) -> list[Any]:
    """Run a program; scans are reported in `report`. With `blocks` it is one rank's part.

    Raises
    ------
    ScheduleError
        If a scan asks to be resumed and the program is only a part of a gradient.
    """
    # Blocks of one program have been compared when it was cut.
    compared = together(program, arguments) if blocks is None else kept_exchanges()
    with finite.at_most_once(), compared:
        return _run(program, arguments, report, is_resumable, blocks)


def _run(
    program: Program,
    arguments: Sequence[Any],
    report: Report | None,
    is_resumable: bool,
    blocks: Blocks | None,
) -> list[Any]:
    handlers = Handlers(report if report is not None else Report(), plan_program(program))
    requests = [p.request for p in handlers.plans.values() if p.request.resume]
    if not requests and blocks is None:
        return handlers.run(program, arguments)
    if not requests and blocks is not None:
        handlers.journal = NoJournal(blocks.comm)
        with stop.finishing():  # scans inside of steps
            return handlers.run(program, arguments)
    if not is_resumable:
        raise ScheduleError(
            "resume=True is for grad and value_and_grad, whose sweeps are one call: vjp and "
            "linearize return in the middle"
        )
    if blocks is None and talks(program):
        raise ScheduleError(
            "resume=True is not supported where a program calls collectives itself: leave it out, "
            "or let backsweep cut the grid with decomposition="
        )
    with journal_of(requests, program, arguments, blocks) as journal:
        handlers.journal = journal
        results = handlers.run(program, arguments)
        journal.complete()
    return results


def unaliased(results: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Results that the caller may change: no views of arguments or of each other."""
    taken = [a for a in arguments if isinstance(a, np.ndarray)]
    own: list[Any] = []
    for value in results:
        if isinstance(value, np.ndarray):
            is_shared = any(np.may_share_memory(value, a) for a in taken)
            value = value.copy() if is_shared or not value.flags.writeable else value
            taken.append(value)
        own.append(value)
    return own


def _table() -> dict[str, Any]:
    """How an equation is run again, beside the run under way."""
    return Handlers(Report(), {}).table()


def _as_scan(eqn: Equation, track: Any) -> Any:
    """Parameters of a scan; a loop that has run is one, for the number of steps is known."""
    if "length" in eqn.params:
        return eqn.params
    shape = track.shape if hasattr(track, "shape") else track.step.shape
    return dict(eqn.params) | {"length": shape.length}


@dataclass
class Handlers:
    """How the runtime runs the primitives that hold programs."""

    report: Report
    plans: Mapping[int, ScanPlan]
    journal: AbstractJournal = field(default_factory=NoJournal)

    def run(self, program: Program, arguments: Sequence[Any]) -> list[Any]:
        """Run a program, or one that a program holds."""
        return evaluate(program, arguments, self.table())

    def table(self) -> dict[str, Any]:
        return {
            "scan": self.scan,
            "scan_forward": self.scan_forward,
            "scan_tangent": self.scan_tangent,
            "scan_reverse": self.scan_reverse,
            "while_loop": lambda eqn, values: run_while(eqn.params, values, self.journal.event()),
            "while_forward": self.scan_forward,
            "while_tangent": self.scan_tangent,
            "while_reverse": self.scan_reverse,
            "remat": lambda eqn, values: self.run(eqn.params["program"], values),
            "remat_tangent": self.remat_tangent,
            "remat_reverse": self.remat_reverse,
            "sum_of": self.sum_of,
        }

    def scan(self, eqn: Equation, values: list[Any]) -> list[Any]:
        return self._scan(eqn.params, values, self.journal.event())

    def _scan(self, params: Any, values: list[Any], event: Event = NOT_RESUMABLE) -> list[Any]:
        with entered_scan() as is_outer:
            results = run_scan(params, values, event)
            if is_outer:
                finite.check_forward(params, values, results, _table())
        return results

    def scan_forward(self, eqn: Equation, values: list[Any]) -> list[Any]:
        plan = self.plans.get(id(eqn))
        if plan is None:  # of a program made while running
            plan = plan_program(Program((), (eqn,), ()))[id(eqn)]
        scan_report = plan.report()
        self.report.scans.append(scan_report)
        run = run_while_forward if "cond" in eqn.params else run_scan_forward
        with entered_scan() as is_outer:
            if is_outer:
                adjoint.check_fields(eqn.params)
            results = run(eqn.params, values, scan_report, plan, self.journal.event())
            if is_outer:
                finite.check_forward(_as_scan(eqn, results[-1]), values, results, _table())
        return results

    def scan_reverse(self, eqn: Equation, values: list[Any]) -> list[Any]:
        params = _as_scan(eqn, values[0])
        with entered_scan() as is_outer:
            watch = adjoint.recorder(params) if is_outer else None
            results = run_scan_reverse(params, values, self.journal.event(), watch)
            if is_outer:
                finite.check_reverse(params, values, results, _table())
        return results

    def scan_tangent(self, eqn: Equation, values: list[Any]) -> list[Any]:
        """Run the JVP of the scan (or loop) again from its initial state."""
        p, shape = eqn.params, scan_shape(eqn.params)
        n = len(p["step"].inputs)
        primals, given = values[1 : 1 + n], iter(values[1 + n :])
        dots = [next(given) if is_active else None for is_active in p["active_in"]]
        step = jvp_step(p["step"], shape.n_consts, shape.n_carry, p["active_in"], p["active_out"])
        joined: list[Any] = []
        for group, group_dots in zip(
            shape.split_inputs(primals), shape.split_inputs(dots), strict=True
        ):
            joined += [*group, *(d for d in group_dots if d is not None)]
        n_dots = sum(p["active_out"][: shape.n_carry])
        params = {
            "step": step,
            "n_consts": shape.n_consts + sum(p["active_in"][: shape.n_consts]),
            "n_carry": shape.n_carry + n_dots,
        }
        if "cond" in p:
            cond = jvp_cond(p["cond"], shape, p["active_in"])
            results = run_while(params | {"cond": cond, "max_steps": p["max_steps"]}, joined)
        else:
            results = self._scan(params | {"length": shape.length}, joined)
        n_y = len(p["step"].outputs) - shape.n_carry
        carry_dots = results[shape.n_carry : shape.n_carry + n_dots]
        return [*carry_dots, *results[shape.n_carry + n_dots + n_y :]]

    def remat_tangent(self, eqn: Equation, values: list[Any]) -> list[Any]:
        p = eqn.params
        program, _ = jvp_program(p["program"], p["active_in"], keep=p["active_out"])
        results = self.run(program, values)
        return results[len(p["program"].outputs) :]

    def remat_reverse(self, eqn: Equation, values: list[Any]) -> list[Any]:
        p = eqn.params
        return self.run(vjp_program(p["program"], p["active_in"], p["active_out"]), values)

    def sum_of(self, eqn: Equation, values: list[Any]) -> Sequence[Any]:
        return tree_sum(self.run(p, values) for p in eqn.params["programs"])
