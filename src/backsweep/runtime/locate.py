"""Finds the step, the field and the user's line at which a sweep has become infinite or NaN.

Sweeps run again in pieces, each of which is looked at when it is over, then the piece that is not
finite in smaller ones, down to one step; the interpreter runs that step and names the equation.
Costs about one more forward sweep, or for the adjoint up to three more of its sweeps and a forward
one; and two states.

Known to be suboptimal: neither the snapshots nor the pauses of the sweep that failed are used to
begin later than at step 0.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from backsweep.codegen.step import NotLowerable
from backsweep.ir import Program
from backsweep.ir.cause import Cause, find_cause, is_finite
from backsweep.passes import vjp_program
from backsweep.primitives.control import ScanShape, scan_shape
from backsweep.runtime import stop
from backsweep.runtime.compiled import compile_forward
from backsweep.runtime.plan import carry_types, why_python
from backsweep.runtime.scan import run_scan_reverse
from backsweep.runtime.sweeper import StateMemory, Sweeper, SweepInputs
from backsweep.runtime.traced import TracedStep
from backsweep.runtime.watch import Cotangent, field_names
from backsweep.schedule import ADVANCE

PIECES = 64
"""Into which a range of steps is cut."""

STEP_BY_STEP = 1024
"""Steps that are looked at one by one in a reverse sweep, which cannot go on from a piece."""

Table = Mapping[str, Any]
State = Sequence[np.ndarray]


@dataclass(frozen=True)
class Found:
    """What is told; an empty sentence where nothing was found."""

    sentence: str = ""
    is_from_inputs: bool = False


# --------------------------------------------------------------------------- words


def _is_jit(shape: ScanShape) -> bool:
    return shape.length == 1 and shape.n_carry == 0


def scan_text(shape: ScanShape) -> str:
    if _is_jit(shape):
        return "jit"
    return f"scan of {shape.length} step" + "s" * (shape.length != 1)


def are(names: Iterable[str]) -> str:
    """`u is not finite`, `u and v are not finite`."""
    listed = list(names)
    return " and ".join(listed) + (" is" if len(listed) == 1 else " are") + " not finite"


def record_names(step: Program, shape: ScanShape) -> list[str]:
    n, word = len(step.outputs) - shape.n_carry, "result" if _is_jit(shape) else "record"
    return [f"the {word}"] if n == 1 else [f"{word} {k}" for k in range(n)]


def gradient_names(params: Any) -> list[str]:
    """Of the results of a reverse sweep: of active consts, carry and xs."""
    step, shape = params["step"], scan_shape(params)
    consts, _, xs = shape.split_inputs(step.inputs)
    names = [
        *(f"the gradient of {v.name or f'captured array {k}'}" for k, v in enumerate(consts)),
        *(f"the cotangent of {name}" for name in field_names(step, shape)),
        *(f"the gradient of {v.name or f'xs {k}'}" for k, v in enumerate(xs)),
    ]
    return [n for n, is_active in zip(names, params["active_in"], strict=True) if is_active]


def _told(what: str, cause: Cause | None, verb: str = "") -> Found:
    """The whole sentence."""
    if cause is None:
        return Found(what)
    if cause.equation is None:
        return Found(what, is_from_inputs=True)
    source = cause.source
    line = linecache.getline(source.file, source.line).strip() if source is not None else ""
    origin = f"{verb}`{line or cause.equation.primitive.name}`"
    where = f" at {source}" if source is not None else ""
    return Found(f"{what}; the first such value came from {origin}{where}")


# --------------------------------------------------------------------------- forward


class _Runner(Protocol):
    """Runs ranges of steps, records nothing."""

    def advance(self, state: State, start: int, stop: int) -> State:
        """The state of step `stop`; to be read at once."""


class _Native:
    def __init__(self, step: Program, shape: ScanShape, consts: Any, xs: Any) -> None:
        compiled = compile_forward(step, shape.any_length, in_place=True)
        types = carry_types(step, shape)
        chains, sizes = compiled.source.chains, compiled.ring_sizes
        self.memory = StateMemory(shape, types, chains, shape.length, False, 0, sizes)
        const_types, _, x_types = shape.split_inputs(step.in_types)
        self.sweeper = Sweeper(compiled, self.memory, SweepInputs(consts, const_types, xs, x_types))
        for k, type in enumerate(shape.split_outputs(step.out_types)[1]):
            # All steps write their record to one place.
            self.sweeper.bind(f"y{k}", np.zeros(max(1, type.size), type.dtype))
            self.sweeper.values[f"y_step{k}"] = 0

    def advance(self, state: State, start: int, stop: int) -> State:
        self.memory.place(state, start)
        rows = np.array([[ADVANCE, start, stop, -1]], np.int64)
        self.sweeper.run_rows(rows, _give_up_if_stopped)
        return self.memory.state()


class _Interpreted:
    def __init__(self, step: Program, shape: ScanShape, consts: Any, xs: Any) -> None:
        self.step, self.xs = TracedStep(step, shape, consts), xs

    def advance(self, state: State, start: int, stop: int) -> State:
        current = list(state)
        for n in range(start, stop):
            current, _ = self.step.advance(n, current, [x[n] for x in self.xs])
            _give_up_if_stopped()
        return current


def _give_up_if_stopped() -> None:
    """A job that is to end makes itself durable; the search can wait."""
    if stop.is_under_way():
        raise InterruptedError(f"{stop.requested()} received")


def _runner(step: Program, shape: ScanShape, consts: Any, xs: Any) -> _Runner:
    if not why_python(step):
        try:
            return _Native(step, shape, consts, xs)
        except NotLowerable:
            pass
    return _Interpreted(step, shape, consts, xs)


def _first_bad_state(
    runner: _Runner, state: State, limit: int
) -> tuple[int | None, list[np.ndarray]]:
    """The first of the steps [0, limit) that leaves a state that is not finite, and its input.

    Without one: None and the state of step `limit`.
    """
    state, at, size = [np.array(a) for a in state], 0, max(1, -(-limit // PIECES))
    while at < limit:
        end = min(at + size, limit)
        after = runner.advance(state, at, end)
        if all(map(is_finite, after)):
            state, at = [np.array(a) for a in after], end
        elif end == at + 1:
            return at, state
        else:
            limit, size = end, -(-(end - at) // PIECES)
    return None, state


def forward(params: Any, args: Sequence[Any], results: Sequence[Any], table: Table) -> Found:
    """Where a forward scan became infinite or NaN.

    Parameters
    ----------
    params, args
        Of the scan.
    results : sequence of ndarray
        The final carry and the records.
    """
    step, shape = params["step"], scan_shape(params)
    consts, init, xs = shape.split_inputs(args)
    carry, ys = shape.split_outputs(results)
    at_record = min((_first_bad_row(y) for y in ys), default=shape.length)
    is_record = at_record < shape.length
    initial = [np.asarray(a, t.dtype) for a, t in zip(init, carry_types(step, shape), strict=True)]
    runner = _runner(step, shape, consts, xs)
    at, state = _first_bad_state(runner, initial, at_record)
    if at is None:
        if not is_record:
            return Found()
        at = at_record
    inputs = [*consts, *state, *(x[at] for x in xs)]
    after = runner.advance(state, at, at + 1)
    bad = [j for j, a in enumerate(after) if not is_finite(a)]
    names = field_names(step, shape)
    if not bad:
        bad = [shape.n_carry + k for k, y in enumerate(ys) if not is_finite(y[at])]
        names += record_names(step, shape)
    what = are(names[k] for k in bad)
    where = "" if _is_jit(shape) else f" after step {at}"
    cause = find_cause(step, inputs, table, bad)
    return _told(f"{scan_text(shape)}: {what}{where}", cause)


def _first_bad_row(y: np.ndarray) -> int:
    """The first row of a record that is not finite; their number if all are."""
    if is_finite(y):
        return len(y)
    size = max(1, len(y) // PIECES)
    begin = next(n for n in range(0, len(y), size) if not is_finite(y[n : n + size]))
    return next(n for n in range(begin, len(y)) if not is_finite(y[n]))


# --------------------------------------------------------------------------- reverse


@dataclass
class _Search:
    """Looks at a reverse sweep: every `stride` steps within [lo, hi)."""

    lo: int
    hi: int
    stride: int
    last: int = -1
    """Down to this step everything is finite."""
    before: list[np.ndarray] = field(default_factory=list)
    """Cotangents of the state there."""
    found: int = -1
    bad: list[int] = field(default_factory=list)
    """Which gradients are not finite, numbered as the results of the sweep."""

    def begin(self, n_steps: int, end: int, cotangent: Cotangent) -> None:
        self.last = end
        self.before = [np.array(b) for b in cotangent.carry_bars(end)]

    def next(self, stop: int) -> int:
        if self.found >= 0 or stop <= self.lo:
            return -1
        if stop > self.hi:
            return self.hi
        return self.lo + (stop - 1 - self.lo) // self.stride * self.stride

    def see(self, step: int, cotangent: Cotangent) -> None:
        _give_up_if_stopped()
        bars = cotangent.carry_bars(step)
        consts, xs = cotangent.gradients(step, self.last)
        groups = [*consts, *([b] for b in bars), *xs]
        bad = [k for k, group in enumerate(groups) if not all(map(is_finite, group))]
        if bad:
            self.found, self.bad = step, bad
        else:
            self.last, self.before = step, [np.array(b) for b in bars]


def reverse(params: Any, args: Sequence[Any], table: Table) -> Found:
    """Where a reverse sweep became infinite or NaN.

    Parameters
    ----------
    params, args
        Of the scan_reverse; its trajectory is swept again.
    """
    n = scan_shape(params).length
    search = _Search(0, n, 1 if n <= STEP_BY_STEP else -(-n // PIECES))
    while True:
        run_scan_reverse(params, args, watch=search)
        if search.found < 0:
            return Found()
        if search.last - search.found == 1:
            break
        lo, hi = search.found, search.last
        search = _Search(lo, hi, 1 if hi - lo <= STEP_BY_STEP else -(-(hi - lo) // PIECES))
    return _name_reverse(params, args, search, table)


def _name_reverse(params: Any, args: Sequence[Any], search: _Search, table: Table) -> Found:
    step, shape, track = params["step"], scan_shape(params), args[0]
    active_in, active_out = params["active_in"], params["active_out"]
    n_primal = len(step.inputs) - shape.n_carry
    given = args[1 : 1 + n_primal]
    consts, xs = given[: shape.n_consts], given[shape.n_consts :]
    y_bars = args[1 + n_primal + sum(active_out[: shape.n_carry]) :]
    at = search.found
    names = gradient_names(params)
    what = f"{are(names[k] for k in _carry_first(params, search.bad))} before step {at}"
    sentence = f"{scan_text(shape)}, swept back: {what}"
    state = list(track.driver.initial)
    if at > 0:
        state = list(_runner(step, shape, consts, xs).advance(state, 0, at))
    inputs = [*consts, *state, *(x[at] for x in xs), *search.before, *(y[at] for y in y_bars)]
    program = vjp_program(step, active_in, active_out)
    return _told(sentence, find_cause(program, inputs, table), "the derivative of ")


def _carry_first(params: Any, bad: Sequence[int]) -> list[int]:
    """Cotangents of the carry, which go on; gradients where those are finite."""
    consts, carry, _ = scan_shape(params).split_inputs(params["active_in"])
    first = sum(consts)
    own = [k for k in bad if first <= k < first + sum(carry)]
    return own or list(bad)
