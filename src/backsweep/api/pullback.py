"""The pullback that `vjp` returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.api.tree import flatten
from backsweep.closing import Closing
from backsweep.comm import BlockedArray
from backsweep.errors import DifferentiationError, ShapeError
from backsweep.ir import Program
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.report import Report

Run = Callable[[Program, list[Any], Report], list[Any]]


def run_alone(program: Program, arguments: list[Any], report: Report) -> list[Any]:
    """Run a program on whole arrays; results may be changed."""
    return unaliased(run_program(program, arguments, report), arguments)


class Pullback(Closing):
    """The linear map from cotangents of the outputs to cotangents of the inputs.

    May be called again; holds residuals and trajectories until `close`, the end of a `with`
    block, or until it is no longer referenced.

    Parameters
    ----------
    program : Program
        residuals, cotangents -> cotangents of the inputs.
    residuals : list
    out_types : sequence of ArrayType
        Of the outputs of the function.
    build : callable
        Puts results into the containers of the arguments.
    report : Report
    run : callable
        By which the program is run on arrays, with a report.

    Attributes
    ----------
    report : Report
    """

    def __init__(
        self,
        program: Program,
        residuals: list[Any],
        out_types: Any,
        build: Callable[[Any], Any],
        report: Report,
        run: Run = run_alone,
    ) -> None:
        self._program, self._out_types, self._build = program, out_types, build
        self._run = run
        self._residuals = residuals
        self.report = report
        self._finalizer = weakref.finalize(self, residuals.clear)

    def __call__(self, cotangent: Any) -> Any:
        if self._residuals == [] and self._program.inputs[len(self._out_types) :]:
            raise DifferentiationError("the pullback was closed: call vjp again")
        leaves, _ = flatten(cotangent)
        if len(leaves) != len(self._out_types):
            raise ShapeError(
                f"the pullback needs {len(self._out_types)} cotangents, {len(leaves)} were given"
            )
        cts = []
        for k, (leaf, type) in enumerate(zip(leaves, self._out_types, strict=True)):
            if np.shape(leaf) != type.shape:
                raise ShapeError(
                    f"cotangent {k} has shape {np.shape(leaf)}, {type.shape} is needed"
                )
            is_blocked = isinstance(leaf, BlockedArray)
            cts.append(leaf if is_blocked else np.asarray(leaf, type.dtype))
        active = [ct for ct, t in zip(cts, self._out_types, strict=True) if t.is_inexact]
        arguments = [*self._residuals, *active]
        return self._build(self._run(self._program, arguments, self.report))

    def close(self) -> None:
        """Release residuals and trajectories."""
        for value in self._residuals:
            if hasattr(value, "close"):
                value.close()
        self._finalizer()
