"""Runs a program on global arrays as blocks, one per rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backsweep.comm import BlockedArray, Decomposition, require_equal
from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Program, Var, program_hash
from backsweep.passes.partition import partition
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.journal import identity_of
from backsweep.runtime.report import Report
from backsweep.runtime.together import Blocks
from backsweep.trace.tracing import active_trace


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
    known: dict[Var, np.ndarray] = {}
    for var, value in zip(program.inputs, values, strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            known[var] = value
    local = partition(program, decomposition, known, comm.rank)
    arguments = [
        _part(value, var.type, box)
        for var, value, box in zip(program.inputs, values, local.boxes, strict=True)
        if box is not None
    ]
    arguments += local.extras
    n_own = len(arguments) - len(local.extras)
    blocks = Blocks(
        comm, lambda: _labels(program, values, decomposition, local.boxes, arguments[:n_own])
    )
    outputs = run_program(local.program, arguments, report, is_resumable=True, blocks=blocks)
    results = unaliased(outputs, arguments)
    types: Any = program.out_types
    return [
        value if box is None else BlockedArray.from_parts(type.shape, type.dtype, box, value, comm)
        for value, box, type in zip(results, local.outputs, types, strict=True)
    ]


def _labels(
    program: Program,
    values: Sequence[Any],
    decomposition: Decomposition,
    boxes: Sequence[Any],
    parts: Sequence[np.ndarray],
) -> dict[str, str]:
    """What this rank knows of the identity of the whole: of arrays read by blocks, its own."""
    own = iter(parts)
    known = []
    for value, box in zip(values, boxes, strict=True):
        part = next(own) if box is not None else np.empty(0)
        known.append(part if isinstance(value, BlockedArray) else value)
    cut = {
        "ranks": str(decomposition.comm.size),
        "ranks along the cut axes": str(decomposition.ranks),
        "cut axes": str(decomposition.axes),
        "grid": str(decomposition.shape),
        "periodic": str(decomposition.periodic),
    }
    return cut | identity_of(program, known)


def _part(value: Any, type: Any, box: Any) -> np.ndarray:
    assert isinstance(type, ArrayType)
    if isinstance(value, BlockedArray):
        return value.read(box)
    part = np.asarray(value, type.dtype)[tuple(slice(*r) for r in box)]
    return np.ascontiguousarray(part).reshape(part.shape)
