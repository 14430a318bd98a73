"""What looks at a sweep from outside while it runs: at which steps, and at what.

Rows of a schedule are cut where somebody looks; nothing else changes, so that a sweep that is
watched gives the bits of one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from backsweep.ir import Program
from backsweep.primitives.control import ScanShape
from backsweep.runtime.driver import Machine, Pause
from backsweep.schedule import REVERSE


@dataclass(frozen=True)
class Cotangent:
    """Access to the cotangents of a sweep that is under way.

    Attributes
    ----------
    carry_bars : callable
        step -> those of the state before it; to be read at once.
    gradients : callable
        (start, stop) -> for each active constant its arrays so far, and for each active x those
        of the steps [start, stop).
    """

    carry_bars: Callable[[int], Sequence[np.ndarray]]
    gradients: Callable[[int, int], tuple[list[Any], list[Any]]]


class Watch(Protocol):
    """Looks at a reverse sweep at steps that it chooses."""

    def begin(self, n_steps: int, end: int, cotangent: Cotangent) -> None:
        """The steps [0, end) are to be reversed, those above are already (in a resumed run)."""

    def next(self, stop: int) -> int:
        """The largest step below `stop` at which to look, or -1."""

    def see(self, step: int, cotangent: Cotangent) -> None:
        """The steps from this one on are reversed."""


@dataclass
class _Watched:
    machine: Machine
    watch: Watch
    cotangent: Cotangent

    def run_rows(self, rows: np.ndarray, pause: Pause) -> None:
        batch: list[tuple[int, ...]] = []
        for kind, start, stop, slot in rows.tolist():
            if kind != REVERSE:
                batch.append((kind, start, stop, slot))
                continue
            while (at := self.watch.next(stop)) >= start:
                batch.append((REVERSE, at, stop, slot))
                self.machine.run_rows(np.array(batch, np.int64), pause)
                batch.clear()
                self.watch.see(at, self.cotangent)
                stop = at
            if start < stop:
                batch.append((REVERSE, start, stop, slot))
        if batch:
            self.machine.run_rows(np.array(batch, np.int64), pause)

    def state(self) -> list[np.ndarray]:
        return self.machine.state()

    def begin_load(self, step: int) -> list[np.ndarray]:
        return self.machine.begin_load(step)


def watched(
    machine: Any, watch: Watch | None, n_steps: int, end: int, cotangent: Cotangent
) -> Machine:
    """A machine at which somebody looks; the machine itself if nobody does."""
    if watch is None:
        return machine
    watch.begin(n_steps, end, cotangent)
    return _Watched(machine, watch, cotangent)


_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)


@contextmanager
def entered_scan() -> Iterator[bool]:
    """Tell whether this is a scan of its own, not one that Python runs in the step of another."""
    is_outer = not _is_inside.get()
    token = _is_inside.set(True)
    try:
        yield is_outer
    finally:
        _is_inside.reset(token)


def field_names(step: Program, shape: ScanShape) -> list[str]:
    """The user's names of a step's carry, each once; carry0, ... where there are none."""
    variables = shape.split_inputs(step.inputs)[1]
    taken: set[str] = {"step"}
    names: list[str] = []
    for j, var in enumerate(variables):
        base = var.name or f"carry{j}"
        name, number = base, 1
        while {name, f"{name}_norm"} & taken:
            number += 1
            name = f"{base}_{number}"
        taken |= {name, f"{name}_norm"}
        names.append(name)
    return names
