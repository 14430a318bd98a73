"""Seconds per step: some steps of a scan are run forward and reversed with made-up values.

The time of a step does not depend on the values, as a rule; what the compiled code does with
infinities takes no longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backsweep.ir import ArrayType, Equation
from backsweep.primitives.control import scan_shape
from backsweep.runtime.choose import Choice
from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.report import ScanReport
from backsweep.runtime.scan import run_scan_forward, run_scan_reverse
from backsweep.schedule import Binomial, StoreAll

TRIAL_SECONDS = 0.1
"""A trial of a scan's forward half takes about this long."""


@dataclass(frozen=True)
class Rates:
    """Seconds per step, forward and reversed from a state that is there."""

    advance: float
    reverse: float

    def seconds(self, n_advances: int, n_reverses: int) -> float:
        return self.advance * n_advances + self.reverse * n_reverses


def trial(forward: Equation, reverse: Equation, plan: ScanPlan) -> Rates:
    """Measure seconds per step of both halves of a scan, on some steps with made-up values."""
    n, m = plan.demand.n_steps, min(8, plan.demand.n_steps)
    while True:
        _run_trial(forward, reverse, plan, m)  # touches fresh memory, loads code
        report, rates = _run_trial(forward, reverse, plan, m)
        seconds = report.forward_seconds
        if m >= n or seconds > TRIAL_SECONDS / 2:
            return rates
        m = min(n, m * min(16, max(2, int(TRIAL_SECONDS / max(seconds, 1e-6)))))


def _run_trial(
    forward: Equation, reverse: Equation, plan: ScanPlan, m: int
) -> tuple[ScanReport, Rates]:
    p, q = dict(forward.params) | {"length": m}, dict(reverse.params) | {"length": m}
    for params in (p, q):  # of a block of a grid: alone, no rank sends anything
        params.pop("halo", None)
    shape = scan_shape(p)
    step = p["step"]
    consts, carry, xs = shape.split_inputs(step.in_types)
    args = [_made_up(t, 0.01) for t in consts]
    args += [_made_up(t, 0.0) for t in carry]
    args += [_made_up(ArrayType((m, *t.shape), t.dtype), 0.01) for t in xs]
    n_snapshots = min(max(plan.schedule.n_snapshots, 1), max(m - 1, 1))
    choice = Choice(Binomial(m, n_snapshots), n_snapshots - 1)
    if plan.choice.keeps_all:
        choice = Choice(StoreAll(m), 0)
    report = ScanReport()
    short = replace(plan, choice=choice, shape=shape, comm=None)
    results = run_scan_forward(p, args, report, short)
    track = results[-1]
    out_carry, ys = shape.split_outputs(step.out_types)
    flags = shape.split_outputs(q["active_out"])
    bars = [_made_up(t, 0.0) for t, a in zip(out_carry, flags[0], strict=True) if a]
    bars += [
        _made_up(ArrayType((m, *t.shape), t.dtype), 0.01)
        for t, a in zip(ys, flags[1], strict=True)
        if a
    ]
    run_scan_reverse(q, [track, *args[: shape.n_consts], *args[shape.n_consts + shape.n_carry :],
                         *bars])  # fmt: skip
    track.close()
    advance = report.forward_seconds / m
    extra = report.n_advances - m
    rates = Rates(advance, max(0.0, report.reverse_seconds - extra * advance) / m)
    return report, rates


def _made_up(type: ArrayType, value: float) -> np.ndarray:
    kind = type.dtype.kind
    return np.full(type.shape, value if kind in "fc" else 0, type.dtype)
