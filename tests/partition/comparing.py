"""What the ranks of tests/partition do with each program: run it alone, run it cut, compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import backsweep as bs
from backsweep.comm import AbstractComm, BlockedArray, Decomposition

GRID = (13, 11)


@dataclass(frozen=True)
class Case:
    """A function of a grid, and how closely its results on ranks must meet those of one process.

    Attributes
    ----------
    build : callable
        Of the grid's shape: (misfit, arguments).
    value, fields, wholes : float
        Relative to the largest entry: of the value, of gradients that come in blocks, and of
        gradients that every rank has. 0 asks for the same bits.
    refused : str
        What the message of a DecompositionError says; "" where the program must run.
    axes : tuple
        Cuts for which this holds; all of them without it.
    has_second : bool
        Whether `jvp` and `hvp` are compared as well.
    """

    name: str
    build: Callable[[tuple[int, int]], tuple[Callable[..., Any], tuple[Any, ...]]]
    value: float = 0.0
    fields: float = 0.0
    wholes: float = 0.0
    refused: str = ""
    axes: tuple[tuple[int, ...], ...] = ((0,), (1,), (0, 1))
    has_second: bool = False


def arguments(args: Sequence[Any]) -> tuple[int, ...]:
    """Those that have a gradient."""
    return tuple(k for k, a in enumerate(args) if np.asarray(a).dtype.kind in "fc")


def difference(found: Any, expected: Any, tolerance: float) -> str:
    """What is wrong with a result; nothing if it is right."""
    found, expected = np.asarray(found), np.asarray(expected)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return f"{found.dtype}{list(found.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if not np.all(np.isfinite(expected)) or not expected.size:
        return "a test with results that are not finite"
    if np.array_equal(found, expected):
        return ""
    scale = np.abs(expected).max()
    gap = float(np.abs(found - expected).max() / scale) if scale else np.inf
    where = np.argwhere(found != expected)[:3].tolist()
    return "" if gap <= tolerance else f"differs by {gap:.1e} at {where}"


def compared(case: Case, comm: AbstractComm, axes: tuple[int, ...], grid: tuple[int, int]) -> str:
    """What is wrong with a program on blocks; nothing if it is right. Every rank must call."""
    misfit, args = case.build(grid)
    argnums = arguments(args)
    value, gradient = bs.value_and_grad(misfit, argnums)(*args)
    decomposition = Decomposition(grid, axes, comm)
    cut_value, cut = bs.value_and_grad(misfit, argnums, decomposition=decomposition)(*args)
    wrong = [f"value {w}" for w in [difference(cut_value, value, case.value)] if w]
    for k, found, expected in zip(argnums, cut, gradient, strict=True):
        tolerance = case.wholes
        if isinstance(found, BlockedArray) != (np.shape(args[k])[-2:] == grid):
            wrong.append(f"gradient {k} of {np.shape(args[k])} is a {type(found).__name__}")
        if isinstance(found, BlockedArray):
            if found.box[-2:] != decomposition.block():
                wrong.append(f"gradient {k}: {found.box} instead of {decomposition.block()}")
            found, tolerance = found.gather(), case.fields
            if found is None:
                continue
        if not np.any(expected):
            wrong.append(f"the gradient {k} is zero: nothing is tested")
        wrong += [f"gradient {k} {w}" for w in [difference(found, expected, tolerance)] if w]
    if case.has_second:
        wrong += _second(case, misfit, args, decomposition)
    return "; ".join(wrong)


def _second(
    case: Case, misfit: Callable[..., Any], args: Sequence[Any], decomposition: Decomposition
) -> list[str]:
    """What is wrong with derivatives along a direction: of the loss, of its gradient."""
    rng = np.random.default_rng(5)
    dots = tuple(rng.standard_normal(np.shape(a)).astype(a.dtype) for a in args)
    wrong = []
    for derivative in (bs.jvp, bs.hvp):
        expected = derivative(misfit, args, dots)
        found = derivative(misfit, args, dots, decomposition=decomposition)
        pairs = zip(_flat(found), _flat(expected), strict=True)
        for k, (some, whole) in enumerate(pairs):
            is_field = isinstance(some, BlockedArray)
            part = some.gather() if is_field else some
            tolerance = case.fields if is_field else max(case.value, case.wholes)
            if part is not None and (what := difference(part, whole, tolerance)):
                wrong.append(f"{derivative.__name__}, result {k} {what}")
    return wrong


def _flat(results: Any) -> list[Any]:
    if isinstance(results, tuple):
        return [value for part in results for value in _flat(part)]
    return [results]


def cuts(
    axes: Sequence[tuple[int, ...]], size: int, grid: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Those that a number of ranks can make."""
    found = []
    for cut in axes:
        pairs = itertools.product(range(1, size + 1), repeat=len(cut))
        if any(
            np.prod(p) == size and all(n <= grid[a] for n, a in zip(p, cut, strict=True))
            for p in pairs
        ):
            found.append(cut)
    return found


def check(comm: AbstractComm, cases: Sequence[Case], grid: tuple[int, int] = GRID) -> list[str]:
    """All that is wrong with some programs, on all cuts. Every rank must call."""
    wrong = []
    for case in cases:
        for axes in cuts(case.axes, comm.size, grid):
            what = f"{case.name}, {comm.size} ranks, axes {axes}"
            mine = _outcome(case, comm, axes, grid)
            answers = comm.allgather(mine)
            wrong += [f"{what}, rank {k}: {a}" for k, a in enumerate(answers) if a][:1]
    return wrong


def _outcome(case: Case, comm: AbstractComm, axes: tuple[int, ...], grid: tuple[int, int]) -> str:
    if not case.refused:
        try:
            return compared(case, comm, axes, grid)
        except bs.BacksweepError as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:  # on one rank perhaps: the others wait
            error.add_note(f"in {case.name}, axes {axes}")
            raise
    try:
        compared(case, comm, axes, grid)
    except bs.BacksweepError as error:
        return "" if case.refused in str(error) else f"another message: {error}"
    return "was not refused"
