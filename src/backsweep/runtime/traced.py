"""A traced step, by the protocol that the Python executor runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.ir import ArrayType, Program
from backsweep.passes.ranks import adjoint_step
from backsweep.primitives.control import ScanShape

State = list[np.ndarray]


@dataclass
class TracedStep:
    """A step, run by the reference interpreter."""

    step: Program
    shape: ScanShape
    consts: Sequence[Any]
    active_in: tuple[bool, ...] = ()
    active_out: tuple[bool, ...] = ()
    adjoint: Program | None = None
    """The reverse of the step; by default derived from it."""

    @property
    def carry_types(self) -> tuple[ArrayType, ...]:
        return self.shape.split_inputs(self.step.in_types)[1]

    def advance(self, n: int, state: State, x: Sequence[Any]) -> tuple[State, list[Any]]:
        """Step n forward: the next state and the records."""
        from backsweep.runtime.execute import run_program

        with self._noting(n):
            outputs = run_program(self.step, [*self.consts, *state, *x])
        carry, ys = self.shape.split_outputs(outputs)
        return [np.array(c) for c in carry], list(ys)

    def reverse(
        self, n: int, state: State, x: Sequence[Any], state_bar: State, y_bar: Sequence[Any]
    ) -> tuple[State, list[Any], list[Any]]:
        """Step n backward from the state before it: state_bar, x_bar, consts_bar."""
        from backsweep.runtime.execute import run_program

        if self.adjoint is None:
            self.adjoint = adjoint_step(self.step, self.active_in, self.active_out)
        with self._noting(n):
            results = run_program(self.adjoint, [*self.consts, *state, *x, *state_bar, *y_bar])
        consts, carry, _ = self.shape.split_inputs(self.active_in)
        a, c = sum(consts), sum(consts) + sum(carry)
        return results[a:c], results[c:], results[:a]

    @contextlib.contextmanager
    def _noting(self, n: int) -> Iterator[None]:
        """An exception out of the step says in which step it was raised."""
        try:
            yield
        except Exception as error:
            length = self.shape.length
            error.add_note(
                f"in step {n} of a {f'scan of {length} steps' if length >= 0 else 'loop'}"
            )
            raise
