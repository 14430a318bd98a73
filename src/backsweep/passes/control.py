"""Rules for primitives that hold programs: scans, loops, remat, sums of programs.

The JVP of a reverse sweep is the reverse sweep of the JVP'd step with the cotangents
(y_bar_dot, y_bar) on (y, y_dot), so the set of primitives is closed under JVP and
`jvp(grad f)` goes through scans to any order (DESIGN 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any
from weakref import WeakKeyDictionary

from backsweep.errors import DifferentiationError
from backsweep.ir import Atom, Builder, Equation, Program, Var
from backsweep.passes.jvp import CONTROL_JVP, Tangent, instantiate, jvp_program
from backsweep.passes.linearize import CONTROL_TRANSPOSE, linearize, transpose_equations
from backsweep.passes.simplify import simplify
from backsweep.primitives import control as c
from backsweep.primitives import elementwise as ew
from backsweep.primitives.shape import sum_to, zeros

Flags = tuple[bool, ...]


def cached_with_program(function: Callable[..., Any]) -> Callable[..., Any]:
    """Results of a program are kept as long as it is: it may hold a user's object (external)."""
    known: WeakKeyDictionary[Program, dict[Any, Any]] = WeakKeyDictionary()

    @wraps(function)
    def lookup(program: Program, *key: Any) -> Any:
        own = known.setdefault(program, {})
        if key not in own:
            own[key] = function(program, *key)
        return own[key]

    return lookup


@cached_with_program
def carry_fixpoint(
    step: Program, n_consts: int, n_carry: int, active: Flags
) -> tuple[Flags, Flags]:
    """Activity of a step's inputs and outputs: what depends on the active inputs.

    A carry is active if it is at the start or becomes so after a step.
    """
    flags = list(active)
    while True:
        _, out = jvp_program(step, flags)
        grown = False
        for k in range(n_carry):
            if out[k] and not flags[n_consts + k]:
                flags[n_consts + k] = grown = True
        if not grown:
            carry = flags[n_consts : n_consts + n_carry]
            return tuple(flags), (*carry, *out[n_carry:])


@lru_cache(maxsize=64)
def jvp_step(step: Program, n_consts: int, n_carry: int, active: Flags, out: Flags) -> Program:
    """The JVP of a step as a step: consts, carry and xs each followed by their tangents."""
    program, _ = jvp_program(step, active, keep=out)
    n = len(step.inputs)
    primal, dots = program.inputs[:n], iter(program.inputs[n:])
    dot_of = [next(dots) if is_active else None for is_active in active]
    inputs: list[Var] = []
    for lo, hi in ((0, n_consts), (n_consts, n_consts + n_carry), (n_consts + n_carry, n)):
        inputs += primal[lo:hi]
        inputs += [d for d in dot_of[lo:hi] if d is not None]
    m = len(step.outputs)
    out_dots = program.outputs[m:]
    n_carry_dots = sum(out[:n_carry])
    outputs = (
        *program.outputs[:n_carry],
        *out_dots[:n_carry_dots],
        *program.outputs[n_carry:m],
        *out_dots[n_carry_dots:],
    )
    return simplify(Program(tuple(inputs), program.equations, outputs, f"jvp_{step.name}"))


def _interleave(shape: c.ScanShape, values: Sequence[Any], dots: Sequence[Any]) -> list[Any]:
    """consts, consts_dot, carry, carry_dot, xs, xs_dot."""
    result: list[Any] = []
    for group, group_dots in zip(shape.split_inputs(values), shape.split_inputs(dots), strict=True):
        result += [*group, *(d for d in group_dots if d is not None)]
    return result


def _activate(b: Builder, eqn: Equation, ins: Any, dots: Any) -> tuple[Flags, Flags, list[Tangent]]:
    p = eqn.params
    given = tuple(d is not None for d in dots)
    active, out = carry_fixpoint(p["step"], p["n_consts"], p["n_carry"], given)
    filled = [
        instantiate(b, d, x.type) if is_active else None
        for d, x, is_active in zip(dots, ins, active, strict=True)
    ]
    return active, out, filled


def _spread(tangents: Sequence[Atom], flags: Flags) -> list[Tangent]:
    supply = iter(tangents)
    return [next(supply) if flag else None for flag in flags]


def _jvp_scan(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    active, out, filled = _activate(b, eqn, ins, dots)
    p, shape = eqn.params, c.scan_shape(eqn.params)
    is_forward = eqn.primitive in (c.scan_forward, c.while_forward)
    if split:
        if is_forward:
            raise _reverse_over_reverse()
        forward, tangent = _SPLIT[eqn.primitive]
        *outs, trajectory = b(forward, *ins, **p, active_in=active)
        tangents = b(
            tangent,
            trajectory,
            *ins,
            *(d for d in filled if d is not None),
            **p,
            active_in=active,
            active_out=out,
        )
        return outs, _spread(tangents, out)
    step = jvp_step(p["step"], p["n_consts"], p["n_carry"], active, out)
    n_out = len(p["step"].outputs)
    joined = _interleave(shape, ins, filled)
    params = {
        **p,
        "step": step,
        "n_consts": shape.n_consts + sum(active[: shape.n_consts]),
        "n_carry": shape.n_carry + sum(out[: shape.n_carry]),
    }
    if "cond" in p:
        params["cond"] = jvp_cond(p["cond"], shape, active)
    if is_forward:
        params["active_in"] = _interleave_flags(shape, p["active_in"], active)
    results = list(b(eqn.primitive, *joined, **params))
    trajectory = results.pop() if is_forward else None
    k, n_dots = shape.n_carry, sum(out[: shape.n_carry])
    outs = [*results[:k], *results[k + n_dots : n_out + n_dots]]
    tangents = [*results[k : k + n_dots], *results[n_out + n_dots :]]
    out_dots = _spread(tangents, out)
    if is_forward:
        outs.append(trajectory)
        out_dots.append(_JvpTrajectory(trajectory, active, out, filled))  # type: ignore[arg-type]
    return outs, out_dots


def jvp_cond(cond: Program, shape: c.ScanShape, active: Flags) -> Program:
    """The condition of a loop, of the inputs of its `jvp_step`: it reads no tangent."""
    dots = [Var(v.type) if a else None for v, a in zip(cond.inputs, active, strict=True)]
    inputs = _interleave(shape, cond.inputs, dots)
    return Program(tuple(inputs), cond.equations, cond.outputs, cond.name)


_SPLIT = {
    c.scan: (c.scan_forward, c.scan_tangent),
    c.while_loop: (c.while_forward, c.while_tangent),
}
_REVERSE = {c.scan_tangent: c.scan_reverse, c.while_tangent: c.while_reverse}


def _reverse_over_reverse() -> DifferentiationError:
    return DifferentiationError(
        "reverse mode over reverse mode through a scan or a loop is not supported; "
        "use forward over reverse: jvp(grad(f)) or hvp(f)"
    )


class _JvpTrajectory:
    """Stands as the tangent of a trajectory: both are snapshots of the JVP'd step."""

    def __init__(self, var: Var, active: Flags, out: Flags, dots: list[Tangent]) -> None:
        self.var, self.active, self.out, self.dots = var, active, out, dots


def _jvp_scan_reverse(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    if split:
        raise _reverse_over_reverse()
    p, shape = eqn.params, c.scan_shape(eqn.params)
    n_primal = len(p["step"].inputs) - shape.n_carry
    bars, bar_dots = ins[1 + n_primal :], dots[1 + n_primal :]
    track = dots[0]
    if track is None:  # linear in the cotangents
        filled = [instantiate(b, d, x.type) for d, x in zip(bar_dots, bars, strict=True)]
        outs = b(eqn.primitive, *ins, **p)
        return outs, b(eqn.primitive, *ins[: 1 + n_primal], *filled, **p)
    step = jvp_step(p["step"], p["n_consts"], p["n_carry"], track.active, track.out)
    consts, xs = ins[1 : 1 + shape.n_consts], ins[1 + shape.n_consts : 1 + n_primal]
    c_dots, _, x_dots = shape.split_inputs(track.dots)
    primal = [
        *consts,
        *(d for d in c_dots if d is not None),
        *xs,
        *(d for d in x_dots if d is not None),
    ]
    y_bars = _spread(bars, p["active_out"])
    y_bar_dots = _spread(
        [instantiate(b, d, x.type) for d, x in zip(bar_dots, bars, strict=True)], p["active_out"]
    )
    carry_y = _joined_outputs(b, shape, y_bars, y_bar_dots, track.out)
    active_in = _interleave_flags(shape, p["active_in"], track.active)
    params = {
        **p,
        "step": step,
        "n_consts": shape.n_consts + sum(track.active[: shape.n_consts]),
        "n_carry": shape.n_carry + sum(track.out[: shape.n_carry]),
        "active_in": active_in,
        "active_out": tuple(v is not None for v in carry_y),
    }
    results = iter(
        b(eqn.primitive, ins[0], *primal, *(v for v in carry_y if v is not None), **params)
    )
    return _separate(b, shape, p["active_in"], track.active, results)


def _joined_outputs(
    b: Builder, shape: c.ScanShape, bars: list[Any], bar_dots: list[Any], out: Flags
) -> list[Any]:
    """Cotangents on (carry, carry_dot, ys, ys_dot): y_bar_dot on y, y_bar on y_dot."""
    k = shape.n_carry
    on_dot = [bar for bar, has_dot in zip(bars, out, strict=True) if has_dot]
    n = sum(out[:k])
    return [*bar_dots[:k], *on_dot[:n], *bar_dots[k:], *on_dot[n:]]


def _interleave_flags(shape: c.ScanShape, active_in: Flags, has_dot: Flags) -> Flags:
    flags: list[bool] = []
    for wanted, dots in zip(
        shape.split_inputs(active_in), shape.split_inputs(has_dot), strict=True
    ):
        flags += [*wanted, *(w for w, d in zip(wanted, dots, strict=True) if d)]
    return tuple(flags)


def _separate(
    b: Builder, shape: c.ScanShape, active_in: Flags, has_dot: Flags, results: Any
) -> tuple[list[Atom], list[Tangent]]:
    """Cotangents of x_dot are x_bar, those of x are its tangent."""
    outs: list[Atom] = []
    tangents: list[Tangent] = []
    for wanted, dots in zip(
        shape.split_inputs(active_in), shape.split_inputs(has_dot), strict=True
    ):
        on_x: list[Any] = [next(results) if w else None for w in wanted]
        on_dot = [next(results) if w and d else None for w, d in zip(wanted, dots, strict=True)]
        for w, dot_bar, bar_dot in zip(wanted, on_dot, on_x, strict=True):
            if w:
                outs.append(dot_bar if dot_bar is not None else zeros(b, bar_dot.type))
                tangents.append(bar_dot)
    return outs, tangents


def _t_scan_tangent(b: Builder, eqn: Equation, cts: Any, linear: Any) -> list[Any]:
    p, shape = eqn.params, c.scan_shape(eqn.params)
    n = len(p["step"].inputs)
    trajectory, primals = eqn.inputs[0], eqn.inputs[1 : 1 + n]
    consts, _, xs = shape.split_inputs(primals)
    spread = _spread(cts, p["active_out"]) if cts else []
    n_out = len(p["step"].outputs)
    bars: list[Tangent] = []
    outputs = iter(eqn.outputs)
    for k in range(n_out):
        if not p["active_out"][k]:
            bars.append(None)
            continue
        type = next(outputs).type
        ct = spread[k]
        bars.append(instantiate(b, ct, type) if k < shape.n_carry else ct)
    # A loop is reversed as often as it has gone: nothing is asked any more.
    params = {k: v for k, v in p.items() if k not in ("cond", "max_steps")}
    params["active_out"] = tuple(v is not None for v in bars)
    given = (v for v in bars if v is not None)
    results = b(_REVERSE[eqn.primitive], trajectory, *consts, *xs, *given, **params)
    return [*[None] * (1 + n), *results]


# --------------------------------------------------------------------------- remat


def _jvp_remat(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    program = eqn.params["program"]
    active = tuple(d is not None for d in dots)
    joined, out = jvp_program(program, active)
    given = [d for d in dots if d is not None]
    if split:
        outs = b(c.remat, *ins, **eqn.params)
        tangents = b(c.remat_tangent, *ins, *given, **eqn.params, active_in=active, active_out=out)
        return outs, _spread(tangents, out)
    results = b(c.remat, *ins, *given, program=joined)
    n = len(program.outputs)
    return results[:n], _spread(results[n:], out)


def _t_remat_tangent(b: Builder, eqn: Equation, cts: Any, linear: Any) -> list[Any]:
    p = eqn.params
    n = len(p["program"].inputs)
    spread = _spread(cts, p["active_out"])
    params = {**p, "active_out": tuple(v is not None for v in spread)}
    given = (v for v in spread if v is not None)
    results = b(c.remat_reverse, *eqn.inputs[:n], *given, **params)
    return [*[None] * n, *results]


# --------------------------------------------------------------------------- sums of programs


def _jvp_sum_of(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    programs: tuple[Program, ...] = eqn.params["programs"]
    active = tuple(d is not None for d in dots)
    given = [d for d in dots if d is not None]
    if not split:
        keep = tuple(a.type.is_inexact for a in programs[0].outputs)
        joined = tuple(jvp_program(p, active, keep=keep)[0] for p in programs)
        results = b(eqn.primitive, *ins, *given, programs=joined)
        n = len(programs[0].outputs)
        return results[:n], _spread(results[n:], keep)
    if len(programs[0].outputs) != 1 or programs[0].outputs[0].type.shape != ():
        raise DifferentiationError(
            "reverse mode through sum_over needs a function that returns one real scalar; "
            "for second derivatives use jvp(grad(f)) or hvp(f)"
        )
    value, *gradients = b(
        eqn.primitive, *ins, programs=tuple(value_and_grad_program(p, active) for p in programs)
    )
    total: Tangent = None
    for gradient, dot in zip(gradients, given, strict=True):
        product = b(ew.mul, ew.conj_if_complex(b, gradient), dot)
        if product.type.dtype.kind == "c":
            product = b(ew.real, product)
        term = sum_to(b, product, tuple(range(product.type.ndim)))
        term = ew.convert(b, term, value.type.dtype)
        total = term if total is None else b(ew.add, total, term)
    return [value], [total]


def value_and_grad_program(program: Program, active: Sequence[bool]) -> Program:
    """inputs -> (value, gradients of the active inputs), for a program with one real output."""
    from backsweep.ir.builder import scalar

    parts = linearize(program, active)
    b = Builder()
    arguments = tuple(b.input(v.type, v.name) for v in program.inputs)
    results = b.inline(parts.primal, arguments)
    one = scalar(1, results[0])
    cts = [one] if parts.active_out[0] else []
    bars = transpose_equations(b, parts.tangent, results[parts.n_outputs :], cts)
    full = [
        instantiate(b, bar, v.type) for bar, v in zip(bars, _active(program, active), strict=True)
    ]
    return simplify(b.build([results[0], *full], f"value_and_grad_{program.name}"))


def _active(program: Program, active: Sequence[bool]) -> list[Var]:
    return [v for v, is_active in zip(program.inputs, active, strict=True) if is_active]


def _jvp_stop(b: Builder, eqn: Equation, ins: Any, dots: Any, split: bool) -> Any:
    return b.replay(eqn, ins), [None]


CONTROL_JVP.update(
    scan=_jvp_scan,
    scan_forward=_jvp_scan,
    scan_reverse=_jvp_scan_reverse,
    while_loop=_jvp_scan,
    while_forward=_jvp_scan,
    while_reverse=_jvp_scan_reverse,
    remat=_jvp_remat,
    sum_of=_jvp_sum_of,
    stop_gradient=_jvp_stop,
)
CONTROL_TRANSPOSE.update(
    scan_tangent=_t_scan_tangent,
    while_tangent=_t_scan_tangent,
    remat_tangent=_t_remat_tangent,
)
__all__ = [
    "cached_with_program",
    "carry_fixpoint",
    "jvp_cond",
    "jvp_step",
    "value_and_grad_program",
]
