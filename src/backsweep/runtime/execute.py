"""Runs programs: NumPy outside of scans, compiled sweeps for scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backsweep.ir import Equation, Program, evaluate
from backsweep.passes import jvp_program, vjp_program
from backsweep.passes.control import jvp_step
from backsweep.primitives.control import scan_shape, tree_sum
from backsweep.runtime.report import Report, ScanReport
from backsweep.runtime.scan import run_scan, run_scan_forward, run_scan_reverse


def run_program(
    program: Program, arguments: Sequence[Any], report: Report | None = None
) -> list[Any]:
    """Run a program; scans are reported in `report`."""
    report = report if report is not None else Report()
    return evaluate(program, arguments, _Handlers(report).table())


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


class _Handlers:
    """How the runtime runs the primitives that hold programs."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def table(self) -> dict[str, Any]:
        return {
            "scan": lambda eqn, values: run_scan(eqn.params, values),
            "scan_forward": self.scan_forward,
            "scan_tangent": self.scan_tangent,
            "scan_reverse": lambda eqn, values: run_scan_reverse(eqn.params, values),
            "remat": self.remat,
            "remat_tangent": self.remat_tangent,
            "remat_reverse": self.remat_reverse,
            "sum_of": self.sum_of,
        }

    def scan_forward(self, eqn: Equation, values: list[Any]) -> list[Any]:
        scan_report = ScanReport()
        self.report.scans.append(scan_report)
        return run_scan_forward(eqn.params, values, scan_report)

    def scan_tangent(self, eqn: Equation, values: list[Any]) -> list[Any]:
        """Run the JVP of the scan again from its initial state."""
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
            "length": shape.length,
        }
        results = run_scan(params, joined)
        n_y = len(p["step"].outputs) - shape.n_carry
        carry_dots = results[shape.n_carry : shape.n_carry + n_dots]
        return [*carry_dots, *results[shape.n_carry + n_dots + n_y :]]

    def remat(self, eqn: Equation, values: list[Any]) -> list[Any]:
        return run_program(eqn.params["program"], values, self.report)

    def remat_tangent(self, eqn: Equation, values: list[Any]) -> list[Any]:
        p = eqn.params
        program, _ = jvp_program(p["program"], p["active_in"], keep=p["active_out"])
        results = run_program(program, values, self.report)
        return results[len(p["program"].outputs) :]

    def remat_reverse(self, eqn: Equation, values: list[Any]) -> list[Any]:
        p = eqn.params
        program = vjp_program(p["program"], p["active_in"], p["active_out"])
        return run_program(program, values, self.report)

    def sum_of(self, eqn: Equation, values: list[Any]) -> Sequence[Any]:
        return tree_sum(run_program(p, values, self.report) for p in eqn.params["programs"])


__all__ = ["run_program", "unaliased"]
