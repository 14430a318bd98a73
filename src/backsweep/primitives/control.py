"""Primitives that hold programs: scans and their derivatives, calls, sums over items.

A scan's step is a program `(consts, carry, x) -> (carry, y)`. Four primitives make up
its differentiation (DESIGN 4):

* `scan`: (consts, init, xs) -> (carry, ys);
* `scan_forward`: the same, and a trajectory from which it can be reversed;
* `scan_tangent`: the tangent-linear scan, linear in the tangents;
* `scan_reverse`: (trajectory, consts, xs, cotangents) -> cotangents; its transpose.

`sum_of` runs several programs on the same inputs, one after the other, and adds up their outputs
along a fixed binary tree.

`while_loop`, `while_forward`, `while_tangent` and `while_reverse` are the same four for a loop that
goes on while a program `cond`, (consts, carry) -> bool, says so: no xs, no ys, no length.
Evaluation here is the plain reference; the runtime has its own, compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.errors import LoopError, ProgramError
from backsweep.ir import ArrayType, Primitive, TrajectoryType, evaluate
from backsweep.primitives.registry import declare

UNKNOWN = -1
"""Length of a loop whose end is found on the way."""


@dataclass(frozen=True, slots=True)
class ScanShape:
    """How the inputs and outputs of a step are divided."""

    n_consts: int
    n_carry: int
    length: int

    @property
    def any_length(self) -> ScanShape:
        """What does not depend on the number of steps: code is the same for all."""
        return ScanShape(self.n_consts, self.n_carry, 0)

    def split_inputs(self, values: Any) -> tuple[Any, Any, Any]:
        """Into consts, carry, xs."""
        a, c = self.n_consts, self.n_consts + self.n_carry
        return values[:a], values[a:c], values[c:]

    def split_outputs(self, values: Any) -> tuple[Any, Any]:
        """Into carry, ys."""
        return values[: self.n_carry], values[self.n_carry :]


def scan_shape(params: Any) -> ScanShape:
    return ScanShape(params["n_consts"], params["n_carry"], params.get("length", UNKNOWN))


def stacked(type: ArrayType, length: int) -> ArrayType:
    return ArrayType((length, *type.shape), type.dtype, placement=type.placement)


def _type_scan(p: Any, *types: Any) -> tuple[Any, ...]:
    shape, step = scan_shape(p), p["step"]
    consts, init, xs = shape.split_inputs(types)
    s_consts, s_carry, s_xs = shape.split_inputs(step.in_types)
    out_carry, ys = shape.split_outputs(step.out_types)
    given = (*consts, *init, *xs)
    wanted = (*s_consts, *s_carry, *(stacked(t, shape.length) for t in s_xs))
    pairs = [*zip(given, wanted, strict=True), *zip(out_carry, s_carry, strict=True)]
    for a, b in pairs:
        if not a.fits(b):
            raise ProgramError(f"scan: a value is {a}, its step wants {b}")
    return (*s_carry, *(stacked(t, shape.length) for t in ys))


def _evaluate_scan(p: Any, *args: Any) -> tuple[Any, ...]:
    shape, step = scan_shape(p), p["step"]
    consts, carry, xs = shape.split_inputs(args)
    n_y = len(step.outputs) - shape.n_carry
    ys: list[list[Any]] = [[] for _ in range(n_y)]
    for n in range(shape.length):
        outputs = evaluate(step, [*consts, *carry, *(x[n] for x in xs)])
        carry, y = shape.split_outputs(outputs)
        for collected, value in zip(ys, y, strict=True):
            collected.append(np.array(value))
    types = _type_scan(p, *(ArrayType(np.shape(a), np.asarray(a).dtype) for a in args))
    stacks = [
        np.stack(c) if c else np.zeros(t.shape, t.dtype)
        for c, t in zip(ys, types[shape.n_carry :], strict=True)
    ]
    return (*(np.asarray(c) for c in carry), *stacks)


def _type_scan_forward(p: Any, *types: Any) -> tuple[Any, ...]:
    return (*_type_scan(p, *types), TrajectoryType(p["step"], p["length"]))


def _evaluate_scan_forward(p: Any, *args: Any) -> tuple[Any, ...]:
    shape, step = scan_shape(p), p["step"]
    consts, carry, xs = shape.split_inputs(args)
    states = []
    for n in range(shape.length):
        states.append(carry)
        outputs = evaluate(step, [*consts, *carry, *(x[n] for x in xs)])
        carry = shape.split_outputs(outputs)[0]
    return (*_evaluate_scan(p, *args), states)


def _type_scan_tangent(p: Any, *types: Any) -> tuple[Any, ...]:
    shape, step = scan_shape(p), p["step"]
    carry, ys = shape.split_outputs(step.out_types)
    full = (*carry, *(stacked(t, shape.length) for t in ys))
    return tuple(t for t, active in zip(full, p["active_out"], strict=True) if active)


def _type_scan_reverse(p: Any, *types: Any) -> tuple[Any, ...]:
    shape, step = scan_shape(p), p["step"]
    consts, carry, xs = shape.split_inputs(step.in_types)
    full = (*consts, *carry, *(stacked(t, shape.length) for t in xs))
    return tuple(t for t, active in zip(full, p["active_in"], strict=True) if active)


def _only_in_runtime(name: str) -> Any:
    def refuse(p: Any, *args: Any) -> Any:
        raise ProgramError(f"{name} is run by the runtime, not by the reference interpreter")

    return refuse


scan = declare(Primitive("scan", "control", _type_scan, _evaluate_scan))
scan_forward = declare(
    Primitive("scan_forward", "control", _type_scan_forward, _evaluate_scan_forward)
)
scan_tangent = declare(
    Primitive("scan_tangent", "control", _type_scan_tangent, _only_in_runtime("scan_tangent"))
)
scan_reverse = declare(
    Primitive("scan_reverse", "control", _type_scan_reverse, _only_in_runtime("scan_reverse"))
)


# --------------------------------------------------------------------------- loops


def _type_while(p: Any, *types: Any) -> tuple[Any, ...]:
    (flag,) = p["cond"].out_types
    if (flag.shape, flag.dtype) != ((), np.dtype(bool)):
        raise ProgramError(f"while_loop: the condition is {flag}, it must be one bool")
    return _type_scan(p, *types)


def _type_while_forward(p: Any, *types: Any) -> tuple[Any, ...]:
    return (*_type_while(p, *types), TrajectoryType(p["step"], UNKNOWN))


def goes_on(p: Any, consts: Sequence[Any], carry: Sequence[Any], n: int) -> bool:
    """Whether a loop makes another step after the first n.

    Raises
    ------
    LoopError
        If it would be one too many.
    """
    (flag,) = evaluate(p["cond"], [*consts, *carry])
    if flag and n == p["max_steps"]:
        raise too_many_steps(n)
    return bool(flag)


def too_many_steps(n: int) -> LoopError:
    return LoopError(
        f"while_loop: the condition still holds after max_steps={n} steps; see that it can fail "
        "(a NaN, a tolerance that is never reached), or raise max_steps"
    )


def _evaluate_while(p: Any, *args: Any) -> tuple[Any, ...]:
    consts, carry, _ = scan_shape(p).split_inputs(args)
    n = 0
    while goes_on(p, consts, carry, n):
        carry = evaluate(p["step"], [*consts, *carry])
        n += 1
    return tuple(np.asarray(c) for c in carry)


while_loop = declare(Primitive("while_loop", "control", _type_while, _evaluate_while))
while_forward = declare(
    Primitive("while_forward", "control", _type_while_forward, _only_in_runtime("while_forward"))
)
while_tangent = declare(
    Primitive("while_tangent", "control", _type_scan_tangent, _only_in_runtime("while_tangent"))
)
while_reverse = declare(
    Primitive("while_reverse", "control", _type_scan_reverse, _only_in_runtime("while_reverse"))
)


# --------------------------------------------------------------------------- sums of programs


def _type_sum_of(p: Any, *types: Any) -> tuple[Any, ...]:
    return tuple(p["programs"][0].out_types)


def along_tree(terms: Iterable[Sequence[Any]], add: Callable[[Any, Any], Any]) -> Sequence[Any]:
    """Add up tuples along a fixed binary tree over their numbers.

    The sum of the terms [lo, hi) is that of [lo, mid) plus that of [mid, hi), where mid - lo is
    the largest power of two below hi - lo. So the bits depend on the terms alone, not on who
    computes which of them, and whole subtrees can be made elsewhere.

    Parameters
    ----------
    terms : iterable
        Consumed one by one. At most log2(n) + 1 partial sums are alive, as the digits of a
        binary counter: two that hold equally many terms are added at once.
    add : callable
        Of two entries: arrays, or values of a program under construction.
    """

    def added(x: Sequence[Any], y: Sequence[Any]) -> Sequence[Any]:
        return [add(a, b) for a, b in zip(x, y, strict=True)]

    partial: list[tuple[int, Sequence[Any]]] = []
    for term in terms:
        size, total = 1, term
        while partial and partial[-1][0] == size:
            before = partial.pop()[1]
            size, total = 2 * size, added(before, total)
        partial.append((size, total))
    if not partial:
        return ()
    total = partial.pop()[1]
    while partial:
        total = added(partial.pop()[1], total)
    return total


def tree_sum(terms: Iterable[Sequence[Any]]) -> tuple[np.ndarray, ...]:
    """The sum of tuples of arrays, in the order of `along_tree`."""
    return tuple(np.array(t) for t in along_tree(terms, operator.add))


sum_of = declare(
    Primitive(
        "sum_of",
        "control",
        _type_sum_of,
        lambda p, *args: tree_sum(evaluate(q, args) for q in p["programs"]),
    )
)

# --------------------------------------------------------------------------- identities


stop_gradient = declare(
    Primitive("stop_gradient", "call", lambda p, x: x, lambda p, x: np.asarray(x))
)

# checkpoint: `remat` runs a program; its tangent and reverse run it again instead of
# keeping residuals.


def _type_remat(p: Any, *types: Any) -> tuple[Any, ...]:
    return tuple(p["program"].out_types)


def _type_remat_tangent(p: Any, *types: Any) -> tuple[Any, ...]:
    pairs = zip(p["program"].out_types, p["active_out"], strict=True)
    return tuple(t for t, active in pairs if active)


def _type_remat_reverse(p: Any, *types: Any) -> tuple[Any, ...]:
    pairs = zip(p["program"].in_types, p["active_in"], strict=True)
    return tuple(t for t, active in pairs if active)


remat = declare(
    Primitive(
        "remat",
        "control",
        _type_remat,
        lambda p, *args: tuple(evaluate(p["program"], args)),
    )
)
remat_tangent = declare(
    Primitive("remat_tangent", "control", _type_remat_tangent, _only_in_runtime("remat_tangent"))
)
remat_reverse = declare(
    Primitive("remat_reverse", "control", _type_remat_reverse, _only_in_runtime("remat_reverse"))
)
