"""Which executor runs a scan, compiled code or Python, and that ranks who run it together agree.

Steps of a scan whose step calls collectives itself may differ between ranks: one of them may hold
what cannot be compiled. So ranks say what they have found before the first step, and with it the
collectives that compiled code will call in each step, in its order. They run it only if these are
those of the step as it was traced, which the ranks have compared, on each of them. What is true of
the forward half need not be of its reverse, which is looked at when its cotangents are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backsweep.codegen.step import LoweredSerial, NotLowerable
from backsweep.codegen.step_source import StepSource
from backsweep.comm import AbstractComm
from backsweep.ir import Program
from backsweep.passes.ranks import adjoint_step, attached_to, detached, message, messages
from backsweep.passes.residuals import ResidualPlan
from backsweep.primitives.communication import SILENT
from backsweep.primitives.control import scan_shape
from backsweep.runtime import interpreted
from backsweep.runtime.compiled import CompiledSweep, ReverseSweep, compile_reverse
from backsweep.runtime.ghosts import Ghosts, exchanged
from backsweep.runtime.journal import NOT_RESUMABLE
from backsweep.runtime.plan import ScanPlan, why_python
from backsweep.runtime.report import ScanReport
from backsweep.runtime.sweeper import Attach, as_it_is
from backsweep.runtime.talking import ranks_of, talks_itself
from backsweep.runtime.watch import Watch

Found = CompiledSweep | str
"""The compiled sweep, or why there is none."""

Texts = tuple[str, ...]
"""Of the collectives of a step, in their order."""


def to_compile(step: Program, params: Mapping[str, Any]) -> Program:
    """The step of a scan as it is compiled: code that is found again brings no ranks along."""
    return detached(step) if talks_itself(params) else step


def ranks_for(step: Program, params: Mapping[str, Any]) -> Attach:
    """What gives a sweep of `to_compile` the scan's own communicator."""
    return attached_to(step) if talks_itself(params) else as_it_is


def try_compile(step: Program, build: Callable[[], CompiledSweep], params: Any) -> Found:
    """The sweep that advances, or why there is none; ranks that run it together have all one.

    Collective where they do.
    """
    found: Found
    try:
        found = why_python(step) or build()
    except NotLowerable as reason:
        found = str(reason)
    comm = ranks_of(params)
    if comm is None:
        return found
    wanted = [_texts(params["step"])] if talks_itself(params) else None
    return _agreed(comm, found, wanted)


def compile_reverse_of(
    step: Program,
    params: Mapping[str, Any],
    residuals: ResidualPlan | None,
    *,
    advances: bool,
    delays: bool,
    ghosts: Ghosts | None,
) -> ReverseSweep:
    """The sweep that reverses what compiled code has advanced. Collective as `try_compile`.

    Raises
    ------
    NotLowerable
        If it cannot be compiled; on all ranks that run it together, if it cannot be on one.
    """

    def build() -> ReverseSweep:
        return compile_reverse(
            to_compile(step, params),
            scan_shape(params).any_length,
            params["active_in"],
            params["active_out"],
            advances=advances,
            plan=residuals,
            delays=delays,
            adjoint=params.get("adjoint"),
            exchanged=exchanged(params),
            fetched=() if ghosts is None else ghosts.bars.fetched,
        )

    comm = ranks_of(params)
    if comm is None:
        return build()
    found: Found
    try:
        found = build()
    except NotLowerable as reason:
        found = str(reason)
    wanted: list[Texts] | None = None
    if talks_itself(params):
        wanted = [_texts(step)] if advances else []
        wanted.append(_texts(adjoint_step(step, params["active_in"], params["active_out"])))
    agreed = _agreed(comm, found, wanted)
    if not isinstance(agreed, ReverseSweep):
        raise NotLowerable(str(agreed))
    return agreed


def reverse_by_python(
    plan: ScanPlan,
    report: ScanReport,
    initial: Sequence[Any],
    params: Any,
    args: Sequence[Any],
    watch: Watch | None,
) -> list[Any]:
    """A reverse sweep without what compiled code has kept: Python runs the scan once more.

    `args` are those of the reverse sweep, without its trajectory.
    """
    n = scan_shape(params).n_consts
    n_xs = len(params["step"].inputs) - n - len(initial)
    again = [*args[:n], *initial, *args[n : n + n_xs]]
    *_, track = interpreted.run_scan_forward(params, again, plan, report, NOT_RESUMABLE)
    try:
        return interpreted.run_scan_reverse(params, [track, *args], NOT_RESUMABLE, watch)
    finally:
        track.close()


def _agreed(comm: AbstractComm, found: Found, wanted: Sequence[Texts] | None) -> Found:
    """What a rank has found if all have; else the reason of the first one that has not.

    `wanted` are the collectives of each of its steps; None where they need no comparison.
    """
    called: Sequence[Texts] = ()
    if wanted is not None and isinstance(found, CompiledSweep):
        source = found.source
        called = [called_by(s) for s in (source.advance, source.reverse) if s is not None]
        if called != wanted:
            found = "compiled code would call collectives in another order than the step"
    every = comm.allgather((found if isinstance(found, str) else "", called))
    reason = next((why for why, _ in every if why), "")
    if not reason and any(other != called for _, other in every):
        reason = "ranks would call other collectives in compiled code"
    return reason or found


def called_by(source: StepSource) -> Texts:
    """The collectives that a compiled step calls, in its order."""
    return tuple(
        message(phase.equation)
        for phase in source.step.phases
        if isinstance(phase, LoweredSerial) and phase.slot is not None
        if phase.equation.primitive not in SILENT
    )


def _texts(step: Program) -> Texts:
    return tuple(text for text, _ in messages(step))
