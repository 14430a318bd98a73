"""Runs a program on global arrays as blocks, one per rank."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from backsweep.comm import (
    AbstractComm,
    BlockedArray,
    Decomposition,
    HaloExchange,
    require_equal,
)
from backsweep.comm.boxes import Box, box_shape, is_inside, slices_in
from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Program, Var, program_hash
from backsweep.passes.partition import partition
from backsweep.passes.partition.demand import hull
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.report import Report
from backsweep.trace.tracing import active_trace

_SMALL = 1 << 20  # bytes


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
        If the program cannot be cut in this way, on one rank.
    Agreed
        On every rank, if the program cannot be cut for several ranks, or they have traced
        different programs.
    """
    if active_trace() is not None:
        raise DecompositionError(
            "decomposition= belongs to the outermost transformation: it cannot stand inside a "
            "function that is traced itself"
        )
    comm = decomposition.comm
    require_equal(comm, "the traced program", program_hash(program))
    require_equal(comm, "the decomposition", repr(decomposition))
    require_equal(comm, "an array of indices, or another small one,", _digest(values))
    known: dict[Var, np.ndarray] = {}
    for var, value in zip(program.inputs, values, strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            known[var] = value
    local = partition(program, decomposition, known, comm.rank)
    arguments = []
    for var, value, box in zip(program.inputs, values, local.boxes, strict=True):
        if isinstance(value, BlockedArray) and value.is_held:
            part = _fetched(value, box, comm)
        else:
            part = None if box is None else _part(value, var.type, box)
        if part is not None:
            arguments.append(part)
    arguments += local.extras
    results = unaliased(run_program(local.program, arguments, report), arguments)
    types: Any = program.out_types
    return [
        value if box is None else BlockedArray.from_parts(type.shape, type.dtype, box, value, comm)
        for value, box, type in zip(results, local.outputs, types, strict=True)
    ]


def _digest(values: Sequence[Any]) -> str:
    """Of what is small: with other indices on other ranks, these would wait for each other."""
    digest = 0
    for value in values:
        if not isinstance(value, BlockedArray) and np.asarray(value).nbytes <= _SMALL:
            digest = zlib.crc32(np.asarray(value).tobytes(), digest)
    return f"{digest:08x}"


def _fetched(value: BlockedArray, box: Box | None, comm: AbstractComm) -> np.ndarray | None:
    """A part of an array that the ranks hold in parts. Every rank must call."""
    own = value.box
    is_short = box is not None and not is_inside(box, own)
    if not any(comm.allgather(is_short)):
        return None if box is None else value.read(box)
    layout = own if box is None else hull(own, box)
    part = np.empty(box_shape(layout), value.dtype)
    part[slices_in(own, layout)] = value.local
    with HaloExchange(comm, [value.shape], [own], [layout], [value.dtype]) as exchange:
        exchange.exchange([part])
    return None if box is None else np.ascontiguousarray(part[slices_in(box, layout)])


def _part(value: Any, type: Any, box: Any) -> np.ndarray:
    assert isinstance(type, ArrayType)
    if isinstance(value, BlockedArray):
        return value.read(box)
    part = np.asarray(value, type.dtype)[tuple(slice(*r) for r in box)]
    return np.ascontiguousarray(part).reshape(part.shape)
