"""The pullback that `vjp` returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from backsweep.api.tree import flatten
from backsweep.errors import DifferentiationError, ShapeError
from backsweep.ir import Program
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.report import Report


class Pullback:
    """The linear map from cotangents of the outputs to cotangents of the inputs.

    May be called again; holds residuals and trajectories until `close`, the end of a `with`
    block, or until it is no longer referenced.

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
    ) -> None:
        self._program, self._out_types, self._build = program, out_types, build
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
            cts.append(np.asarray(leaf, type.dtype))
        active = [ct for ct, t in zip(cts, self._out_types, strict=True) if t.is_inexact]
        arguments = [*self._residuals, *active]
        bars = unaliased(run_program(self._program, arguments, self.report), arguments)
        return self._build(bars)

    def close(self) -> None:
        """Release residuals and trajectories."""
        for value in self._residuals:
            if hasattr(value, "close"):
                value.close()
        self._finalizer()

    def __enter__(self) -> Pullback:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
