"""Runs of programs that call collectives themselves: what the ranks compare before they start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from backsweep.comm import AbstractComm, require_equal
from backsweep.comm.collectives import are_kept, kept_exchanges
from backsweep.ir import ArrayType, Program
from backsweep.passes.ranks import Line, collectives, communicator, messages
from backsweep.trace.tracing import content_checksum

_known: WeakKeyDictionary[Program, bool] = WeakKeyDictionary()


def talks(program: Program) -> bool:
    """Whether a program, or one that it holds, calls collectives."""
    found = _known.get(program)
    if found is None:
        found = _known[program] = bool(collectives(program))
    return found


def ranks_of(params: Mapping[str, Any]) -> AbstractComm | None:
    """The ranks that run the steps of a scan together; None if each runs its own.

    Without a trajectory those that send nothing run alone: not all may have a reason to.
    """
    halo = params.get("halo")
    if halo is not None:
        return halo.comm
    step = params["step"]
    if not talks(step) or ("active_in" not in params and not any(messages(step))):
        return None
    return communicator(step)


def talks_itself(params: Mapping[str, Any]) -> bool:
    """Whether the step of a scan calls collectives that nobody has put there by cutting it."""
    return "halo" not in params and talks(params["step"])


@contextlib.contextmanager
def together(program: Program, arguments: Sequence[Any]) -> Iterator[None]:
    """Run a program in this block; its collectives are compared before the outermost one.

    Raises
    ------
    Agreed
        On every rank, if they would call other collectives, or if what should be the same on all
        ranks is given other values.
    """
    if are_kept() or not talks(program):
        yield
        return
    comm = communicator(program)
    assert comm is not None
    require_same_messages(comm, program)
    require_same_values(comm, program, arguments)
    with kept_exchanges():
        yield


def require_same_lines(comm: AbstractComm, what: str, lines: Iterable[Line]) -> None:
    """Refuse to go on if texts differ between ranks, with the first one that does.

    Collective: every rank must call.
    """
    own = list(lines)
    rows = zip_longest(*comm.allgather([text for text, _ in own]))
    at = next((k for k, row in enumerate(rows) if len(set(row)) > 1), len(own))
    text, where = own[at] if at < len(own) else ("nothing more", "")
    where = f" ({where})" if where else ""
    require_equal(comm, f"{what}, from number {at} on{where},", text)


def require_same_messages(comm: AbstractComm, program: Program) -> None:
    """Collective: every rank must call."""
    require_same_lines(comm, "the list of collectives", messages(program))


def require_same_values(comm: AbstractComm, program: Program, values: Sequence[Any]) -> None:
    """Collective: every rank must call."""
    found = [
        f"{var.name or 'an input'}: {content_checksum(value)}"
        for var, value in zip(program.inputs, map(_plain, values), strict=True)
        if isinstance(var.type, ArrayType) and var.type.placement == "replicated"
        if value is not None
    ]
    require_equal(comm, "what is said to be replicated", ", ".join(found))


def _plain(value: Any) -> np.ndarray | None:
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic | float | int) else None
