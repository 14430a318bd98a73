"""Which equation of a program made the first value that is not finite.

The reference interpreter runs the program once and notes for each value whether it is finite,
nothing more. Then the way is gone back from the outputs: an infinity that a `where` threw away
is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.ir.evaluate import Handler, evaluate
from backsweep.ir.program import Equation, Program, Source, Var

_BLOCK = 1 << 20


def is_finite(value: Any) -> bool:
    """Whether no element is infinite or NaN; what is no array of floats is finite.

    One pass that allocates nothing: infinities and NaN survive in a sum.
    """
    if not isinstance(value, (np.ndarray, np.generic, float, complex)):
        return True
    array = np.asarray(value)
    if array.dtype.kind not in "fc":
        return True
    with np.errstate(all="ignore"):
        if np.isfinite(np.add.reduce(array, axis=None)):
            return True
    if array.ndim and array.size > _BLOCK:
        half = len(array) // 2
        return all(map(is_finite, (array[:half], array[half:]) if half else array))
    return bool(np.all(np.isfinite(array)))


@dataclass(frozen=True)
class Cause:
    """Where a value that is not finite came from.

    Attributes
    ----------
    equation : Equation, optional
        Its inputs are finite and its output is not; None if it came with the inputs.
    """

    equation: Equation | None

    @property
    def source(self) -> Source | None:
        return self.equation.source if self.equation is not None else None


def find_cause(
    program: Program,
    arguments: Sequence[Any],
    handlers: Mapping[str, Handler],
    outputs: Sequence[int] | None = None,
) -> Cause | None:
    """The first equation behind outputs that are not finite; None if they are finite.

    Parameters
    ----------
    program : Program
    arguments : sequence of array_like
    handlers : mapping
        As for `evaluate`.
    outputs : sequence of int, optional
        Which outputs are asked about. Default: all.

    Notes
    -----
    Costs one evaluation, and another one of what a program calls (inner scans and `checkpoint`),
    into which the search goes down.
    """
    bad = {v for v, a in zip(program.inputs, arguments, strict=True) if not is_finite(a)}

    def note(eqn: Equation, results: Sequence[Any]) -> None:
        bad.update(v for v, r in zip(eqn.outputs, results, strict=True) if not is_finite(r))

    _observed(program, arguments, handlers, note)
    asked = range(len(program.outputs)) if outputs is None else outputs
    needed = {a for k in asked if isinstance(a := program.outputs[k], Var) and a in bad}
    if not needed:
        return None
    root = None
    for eqn in reversed(program.equations):
        if needed.isdisjoint(eqn.outputs):
            continue
        before = [a for a in eqn.inputs if isinstance(a, Var) and a in bad]
        root = root if before else eqn
        needed.update(before)
    if root is None:
        return Cause(None)
    return _inside(program, arguments, handlers, root) or Cause(root)


def _observed(
    program: Program,
    arguments: Sequence[Any],
    handlers: Mapping[str, Handler],
    note: Callable[[Equation, Sequence[Any]], None],
    before: Callable[[Equation, list[Any]], None] = lambda eqn, values: None,
) -> None:
    def run(eqn: Equation, values: list[Any]) -> Sequence[Any]:
        before(eqn, values)
        handler = handlers.get(eqn.primitive.name)
        if handler is not None:
            results = handler(eqn, values)
        else:
            results = eqn.primitive.evaluate(eqn.params, *values)
            if not isinstance(results, tuple):
                results = (results,)
        note(eqn, results)
        return results

    evaluate(program, arguments, {e.primitive.name: run for e in program.equations})


def _inside(
    program: Program, arguments: Sequence[Any], handlers: Mapping[str, Handler], root: Equation
) -> Cause | None:
    """Where in a program that an equation calls."""
    if not any(root.params.get(key) is not None for key in ("program", "programs", "step")):
        return None
    found: list[list[Any]] = []

    def keep(eqn: Equation, values: list[Any]) -> None:
        if eqn is root:
            found.append([np.array(v) if isinstance(v, np.ndarray) else v for v in values])

    _observed(program, arguments, handlers, lambda eqn, results: None, keep)
    values = found[0]
    if root.primitive.name == "remat":
        return find_cause(root.params["program"], values, handlers)
    if root.primitive.name == "sum_of":
        causes = (find_cause(p, values, handlers) for p in root.params["programs"])
        return next((c for c in causes if c is not None), None)
    if root.primitive.name in ("scan", "scan_forward"):
        return _inside_scan(root.params, values, handlers)
    return None


def _inside_scan(params: Any, values: list[Any], handlers: Mapping[str, Handler]) -> Cause | None:
    step: Program = params["step"]
    a, c = params["n_consts"], params["n_consts"] + params["n_carry"]
    carry = values[a:c]
    for n in range(params["length"]):
        inputs = [*values[:a], *carry, *(x[n] for x in values[c:])]
        results = evaluate(step, inputs, handlers)
        if not all(map(is_finite, results)):
            return find_cause(step, inputs, handlers)
        carry = results[: c - a]
    return None
