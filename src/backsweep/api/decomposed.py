"""Runs a program on global arrays as blocks, one per rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from backsweep.api.tree import flatten
from backsweep.comm import BlockedArray, Decomposition, agreement, require_equal
from backsweep.errors import DecompositionError, ShapeError
from backsweep.ir import ArrayType, Program, Var, program_hash
from backsweep.passes.gradient import cotangent_program
from backsweep.passes.partition import Local, partition
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.report import Report
from backsweep.trace.tracing import active_trace, content_checksum


def run_in_blocks(
    program: Program,
    values: Sequence[Any],
    decomposition: Decomposition,
    report: Report | None = None,
) -> list[Any]:
    """Results of a program of which each rank runs its part. Every rank must call.

    Parameters
    ----------
    program : Program
        On global shapes.
    values : sequence of array_like or BlockedArray
        Of its inputs, the same on all ranks.
    decomposition : Decomposition

    Returns
    -------
    list of array or BlockedArray
        Blocked where they lie on the grid; else whole, on every rank.

    Raises
    ------
    DecompositionError
        If the program cannot be cut in this way.
    Agreed
        If the ranks have traced different programs.
    """
    if active_trace() is not None:
        raise DecompositionError(
            "decomposition= belongs to the outermost transformation: it cannot stand inside a "
            "function that is traced itself"
        )
    comm = decomposition.comm
    require_equal(comm, "the traced program", program_hash(program))
    require_equal(comm, "the decomposition", repr(decomposition))
    require_equal(comm, "what its inputs are given", _digest(program, values))
    with agreement(comm):
        local = cut(program, values, decomposition)
    arguments = [
        _part(value, var.type, box)
        for var, value, box in zip(program.inputs, values, local.boxes, strict=True)
        if box is not None
    ]
    arguments += local.extras
    results = unaliased(run_program(local.program, arguments, report), arguments)
    types: Any = program.out_types
    return [
        value if box is None else BlockedArray.from_parts(type.shape, type.dtype, box, value, comm)
        for value, box, type in zip(results, local.outputs, types, strict=True)
    ]


def cut(program: Program, values: Sequence[Any], decomposition: Decomposition) -> Local:
    """What this rank runs of a program.

    Raises
    ------
    DecompositionError
    """
    known: dict[Var, np.ndarray] = {}
    for var, value in zip(program.inputs, values, strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            known[var] = value
    return partition(program, decomposition, known, decomposition.comm.rank)


def _digest(program: Program, values: Sequence[Any]) -> str:
    """Checksums of all that every rank has the whole of: it must be the same."""
    named = zip(program.inputs, values, strict=True)
    found = [
        f"{var.name}: {content_checksum(np.asarray(value))}"
        for var, value in named
        if not isinstance(value, BlockedArray)
    ]
    return ", ".join(found)


def _part(value: Any, type: Any, box: Any) -> np.ndarray:
    assert isinstance(type, ArrayType)
    if isinstance(value, BlockedArray):
        return value.read(box)
    part = np.asarray(value, type.dtype)[tuple(slice(*r) for r in box)]
    return np.ascontiguousarray(part).reshape(part.shape)


class BlockPullback:
    """The linear map from cotangents of the outputs to cotangents of the inputs, in blocks.

    It holds no trajectory: each call runs forward and back. Every rank must call.
    """

    def __init__(
        self,
        program: Program,
        active: Sequence[bool],
        values: Sequence[Any],
        decomposition: Decomposition,
        build: Callable[[Any], Any],
    ) -> None:
        self._out_types: Any = program.out_types
        self._program = cotangent_program(program, active)
        self._values, self._decomposition, self._build = values, decomposition, build
        self.report = Report()

    def __call__(self, cotangent: Any) -> Any:
        leaves, _ = flatten(cotangent)
        shapes = [np.shape(leaf) for leaf in leaves]
        if shapes != [t.shape for t in self._out_types]:
            raise ShapeError(
                f"the pullback needs cotangents of the shapes {[t.shape for t in self._out_types]}"
                f", it was given {shapes}"
            )
        cts = [v for v, t in zip(leaves, self._out_types, strict=True) if t.is_inexact]
        arguments = [*self._values, *cts]
        return self._build(
            run_in_blocks(self._program, arguments, self._decomposition, self.report)
        )

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
