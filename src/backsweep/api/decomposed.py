"""Runs a program on global arrays as blocks, one per rank."""

from __future__ import annotations

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
from backsweep.comm.boxes import Box, box_shape, hull, is_inside, slices_in
from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Program, Var, program_hash
from backsweep.passes.partition import Local, partition
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.journal import identity_of
from backsweep.runtime.report import Report
from backsweep.runtime.together import Blocks
from backsweep.trace.tracing import active_trace, content_checksum

MAX_REMEMBERED = 32
"""Programs that are cut, per decomposition."""


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
    text = program_hash(program)
    if comm.size > 1:
        require_equal(comm, "the traced program", text)
        require_equal(comm, "the decomposition", repr(decomposition))
        require_equal(comm, "what its inputs are given", digest(program, values))
    # One rank cuts, too: what several ranks would refuse is refused here.
    local = _known_cut(program, text, values, decomposition)
    if comm.size > 1:
        results = _run_cut(program, values, decomposition, local, report)
    else:
        results = _run_whole(program, values, report)
    types: Any = program.out_types
    return [
        value if box is None else BlockedArray.from_parts(type.shape, type.dtype, box, value, comm)
        for value, box, type in zip(results, local.outputs, types, strict=True)
    ]


def _run_whole(program: Program, values: Sequence[Any], report: Report | None) -> list[Any]:
    """On one rank the program itself, as it runs without blocks."""
    whole = [
        v.read([(0, n) for n in v.shape]) if isinstance(v, BlockedArray) else v for v in values
    ]
    return unaliased(run_program(program, whole, report, is_resumable=True), whole)


def _run_cut(
    program: Program,
    values: Sequence[Any],
    decomposition: Decomposition,
    local: Local,
    report: Report | None,
) -> list[Any]:
    """The rank's part of it."""
    comm = decomposition.comm
    arguments = []
    for var, value, box in zip(program.inputs, values, local.boxes, strict=True):
        if isinstance(value, BlockedArray) and value.is_held:
            part = _fetched(value, box, comm)
        else:
            part = None if box is None else _part(value, var.type, box)
        if part is not None:
            arguments.append(part)
    arguments += local.extras
    n_own = len(arguments) - len(local.extras)
    blocks = Blocks(
        comm, lambda: _labels(program, values, decomposition, local.boxes, arguments[:n_own])
    )
    outputs = run_program(local.program, arguments, report, is_resumable=True, blocks=blocks)
    return unaliased(outputs, arguments)


def cut(program: Program, values: Sequence[Any], decomposition: Decomposition) -> Local:
    """What this rank runs of a program.

    Raises
    ------
    DecompositionError
    """
    known: dict[Var, np.ndarray] = {}
    for var, value in zip(program.inputs, values, strict=True):
        if _is_index(value):
            known[var] = value
    return partition(program, decomposition, known, decomposition.comm.rank)


def _known_cut(
    program: Program, text: str, values: Sequence[Any], decomposition: Decomposition
) -> Local:
    """As `cut`, remembered: all ranks ask for the same programs in the same order."""
    indices = tuple(v.tobytes() for v in values if _is_index(v))
    known = decomposition.programs
    key = text, indices
    if key not in known:
        known[key] = cut(program, values, decomposition)
        if len(known) > MAX_REMEMBERED:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def _is_index(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu"


def digest(program: Program, values: Sequence[Any]) -> str:
    """Checksums of all that every rank has the whole of: it must be the same."""
    named = zip(program.inputs, values, strict=True)
    found = [
        f"{var.name}: {content_checksum(np.asarray(value))}"
        for var, value in named
        if not isinstance(value, BlockedArray)
    ]
    return ", ".join(found)


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
