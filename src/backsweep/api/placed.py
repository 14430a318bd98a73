"""Functions that call collectives themselves: what is said of their arguments, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import get_args

import numpy as np

from backsweep.api.calls import Call
from backsweep.comm import AbstractComm, Decomposition, world
from backsweep.errors import DifferentiationError
from backsweep.ir import ArrayType, Literal, Placement, Program, verify
from backsweep.passes.partition.placement import located
from backsweep.passes.ranks import check_sums, collectives, communicator, place, replicated_part
from backsweep.passes.simplify import simplify
from backsweep.runtime.talking import require_same_lines, require_same_messages
from backsweep.trace.tracing import active_trace, content_checksum

Placements = Placement | Sequence[Placement] | None
"""Of all arguments, or of each."""


def with_placements(
    call: Call, placement: Placements, decomposition: Decomposition | None = None
) -> Call:
    """A call whose program has placements in its types, if it calls collectives.

    Raises
    ------
    DifferentiationError
        If nothing is said of the arguments of such a program, something is said in vain, or a sum
        runs over ghost cells.
    Agreed
        On every rank, if they would not do together what they must.
    """
    program = call.traced.program
    found = collectives(program)
    if placement is None and not found:
        return call
    first = ""
    if found:
        line = located(found[0])
        first = f"{found[0].primitive.name}{f' ({line})' if line else ''}"
    if decomposition is not None:
        raise DifferentiationError(
            "placement= is for functions that call collectives themselves, which decomposition= "
            f"does for them: leave one of the two out{f'; there is {first}' if first else ''}"
        )
    if active_trace() is not None:
        raise DifferentiationError(
            f"a function that calls collectives{f' ({first})' if first else ''} is differentiated "
            "by the outermost transformation alone: for second derivatives use "
            "hvp(f, primals, tangents, placement=...)"
        )
    if placement is None:
        raise DifferentiationError(
            f"the function calls {first}, so that each rank has arrays of its own, and nothing is "
            "said of its arguments: pass placement=, for each argument 'replicated' (the same on "
            "all ranks) or 'varying'"
        )
    comm = communicator(program) or world()
    inputs = [*_captured(call, comm), *_of_leaves(call, placement)]
    check_sums(program)
    placed = verify(simplify(place(program, inputs, comm)))
    require_same_messages(comm, placed)
    require_same_lines(comm, "what is computed of replicated values", replicated_part(placed))
    return dataclasses.replace(call, traced=dataclasses.replace(call.traced, program=placed))


def _of_leaves(call: Call, placement: Placement | Sequence[Placement]) -> list[Placement]:
    """For each leaf of the arguments."""
    n = len(call.n_leaves)
    given = (placement,) * n if isinstance(placement, str) else tuple(placement)
    known = get_args(Placement)
    if len(given) != n or any(p not in known for p in given):
        raise DifferentiationError(
            f"placement={placement!r}: give one of {', '.join(map(repr, known))} for each of the "
            f"{n} arguments"
        )
    return [p for p, count in zip(given, call.n_leaves, strict=True) for _ in range(count)]


def _captured(call: Call, comm: AbstractComm) -> list[Placement | None]:
    """Captured arrays have no derivative: they are constants where all ranks have the same."""
    values = call.values[: call.traced.n_captured]
    own = [
        (a.shape, a.dtype.str, content_checksum(a)) if isinstance(a, np.ndarray) else None
        for a in values
    ]
    every = comm.allgather(own)
    if any(len(other) != len(own) for other in every):
        return ["varying"] * len(own)
    return [
        None if x is not None and all(other[k] == x for other in every) else "varying"
        for k, x in enumerate(own)
    ]


def check_replicated(program: Program) -> None:
    """Refuse a loss of which each rank has its own."""
    loss = program.outputs[0]
    if isinstance(loss, Literal) or not isinstance(loss.type, ArrayType):
        return
    if loss.type.placement == "varying":
        made = next((e for e in program.equations if loss in e.outputs), None)
        line = f" ({located(made)})" if made is not None and made.source is not None else ""
        raise DifferentiationError(
            f"the value{line} is not the same on all ranks, and its gradient would be a part of "
            "one: add it up with backsweep.comm.allreduce_sum"
        )
