"""Checks of derivatives, for users and for the tests of backsweep.

Forward mode is compared with finite differences, reverse mode with forward mode by the
dot-product identity, gradient and Hessian of a whole simulation with Taylor's theorem.
Directions are random (from a seed) and of the size of each argument, so that parameters of
any unit are perturbed alike. Differences cross kinks without noticing: check away from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.derivatives import grad, hvp, jvp, vjp
from backsweep.api.tree import Tree, flatten
from backsweep.errors import BacksweepError, ForwardModeError

Leaves = list[np.ndarray]


class CheckError(BacksweepError, AssertionError):
    """A derivative is wrong, or cannot be checked in the precision that was given."""


@dataclass(frozen=True, slots=True)
class _Precision:
    """What may be expected of derivatives in a floating point type."""

    eps: float
    difference: float
    """Relative error allowed between a derivative and a finite difference."""
    identity: float
    """Relative error allowed in the dot-product identity."""
    step: float
    """Relative step of a finite difference of fourth order."""


_DOUBLE = _Precision(2.3e-16, 1e-6, 1e-10, 2e-3)
_SINGLE = _Precision(1.2e-7, 1e-2, 1e-4, 5e-2)


def _precision(leaves: Sequence[Any]) -> _Precision:
    dtypes = [np.asarray(v).dtype for v in leaves]
    is_single = any(d in (np.dtype(np.float32), np.dtype(np.complex64)) for d in dtypes)
    return _SINGLE if is_single else _DOUBLE


def _is_inexact(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fc"


def _arrays(value: Any) -> tuple[Leaves, Tree]:
    leaves, tree = flatten(value)
    return [np.asarray(v) for v in leaves], tree


def _normal(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    values = rng.standard_normal(like.shape)
    if like.dtype.kind == "c":
        values = values + 1j * rng.standard_normal(like.shape)
    return np.asarray(values, like.dtype)


def _direction(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """Random numbers of the size of an array's elements."""
    size = float(np.sqrt(np.mean(np.abs(like) ** 2))) if like.size else 0.0
    return np.asarray(_normal(rng, like) * (size or 1.0), like.dtype)


def _dot(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Re sum conj(a) b over all leaves, in double precision."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        wide = np.result_type(x, y, np.float64)
        total += float(np.real(np.vdot(np.asarray(x, wide), np.asarray(y, wide))))
    return total


def _norm(leaves: Sequence[Any]) -> float:
    return float(np.sqrt(_dot(leaves, leaves)))


def _moved(leaves: Leaves, directions: Leaves, h: float) -> Leaves:
    return [
        np.asarray(x + np.asarray(h, np.float64) * d, x.dtype)
        for x, d in zip(leaves, directions, strict=True)
    ]


def _floats(value: Any) -> Leaves:
    """The leaves of a result that carry derivatives, copied."""
    return [np.array(v) for v in flatten(value)[0] if _is_inexact(v)]


def check_jvp(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    tangents: Sequence[Any] | None = None,
    rtol: float | None = None,
    step: float | None = None,
    seed: int = 0,
) -> None:
    """Compare forward mode with central differences of fourth order.

    Parameters
    ----------
    function : callable
    args : tuple of pytrees
        Floating point or complex; integers belong into a closure.
    tangents : tuple of pytrees, optional
        The direction; random by default.
    rtol : float, optional
        Relative error allowed in the norm of each result; by default 1e-6 for double and
        1e-2 for single precision. Rounding errors of the difference are allowed for on top.
    step : float, optional
        Step of the difference, in units of the direction.
    seed : int
        Of the random direction.

    Raises
    ------
    CheckError
        If they differ.
    """
    leaves, tree = _arrays(tuple(args))
    rng = np.random.default_rng(seed)
    dots = [_direction(rng, v) for v in leaves]
    if tangents is not None:
        dots = _arrays(tuple(tangents))[0]
    value, tangent = jvp(function, tree.build([v.copy() for v in leaves]), tree.build(dots))
    expected = _floats(value)
    precision = _precision([*leaves, *expected])
    rtol = precision.difference if rtol is None else rtol
    h = precision.step if step is None else step
    numbers = [k for k, v in enumerate(flatten(value)[0]) if _is_inexact(v)]
    exact = [np.asarray(flatten(tangent)[0][k]) for k in numbers]
    numeric = _difference(function, leaves, tree, dots, h)
    for k, (y, a, b) in enumerate(zip(expected, exact, numeric, strict=True)):
        noise = 10 * precision.eps * _norm([y]) / h
        error, size = _norm([a - b]), max(_norm([a]), _norm([b]))
        if not error <= rtol * size + noise:
            raise CheckError(
                f"result {k}: the directional derivative of forward mode has the norm "
                f"{_norm([a]):.9g}, that of the difference {_norm([b]):.9g}; their difference "
                f"{error:.3g} is more than {rtol:.1g} of it (rounding: {noise:.1g})"
            )


def _difference(
    function: Callable[..., Any], leaves: Leaves, tree: Tree, dots: Leaves, h: float
) -> Leaves:
    """(8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h"""

    def at(shift: float) -> Leaves:
        return [
            np.asarray(y, np.result_type(y, np.float64))
            for y in _floats(function(*tree.build(_moved(leaves, dots, shift))))
        ]

    points = zip(at(-2 * h), at(-h), at(h), at(2 * h), strict=True)
    return [(8 * (c - b) - (d - a)) / (12 * h) for a, b, c, d in points]


def check_transpose(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Compare reverse with forward mode: <w, J v> = <J^T w, v>.

    The inner product is the real one, Re sum conj(a) b, of complex values too.

    Parameters
    ----------
    function : callable
    args : tuple of pytrees
        Floating point or complex.
    rtol : float, optional
        Relative error allowed; by default 1e-10 for double and 1e-4 for single precision.
    seed : int
        Of the random v and w.

    Raises
    ------
    CheckError
        If the two sides differ.
    """
    leaves, tree = _arrays(tuple(args))
    rng = np.random.default_rng(seed)
    dots = [_direction(rng, v) for v in leaves]
    value, tangent = jvp(function, tree.build(leaves), tree.build(dots))
    outputs, out_tree = _arrays(value)
    forward = [np.asarray(t) for t in flatten(tangent)[0]]
    bars = [_normal(rng, y) if _is_inexact(y) else np.zeros(y.shape) for y in outputs]
    _, pullback = vjp(function, *tree.build(leaves))
    reverse = _arrays(pullback(out_tree.build(bars)))[0]
    left, right = _dot(bars, forward), _dot(reverse, dots)
    precision = _precision([*leaves, *(y for y in outputs if _is_inexact(y))])
    rtol = precision.identity if rtol is None else rtol
    noise = 100 * precision.eps * max(_norm(bars) * _norm(forward), _norm(reverse) * _norm(dots))
    if not abs(left - right) <= rtol * max(abs(left), abs(right)) + noise:
        raise CheckError(
            f"forward mode gives <w, J v> = {left:.9g}, reverse mode <J^T w, v> = {right:.9g}; "
            f"they differ by more than {rtol:.1g} of it (rounding: {noise:.1g})"
        )


def check_vjp(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    rtol: float | None = None,
    step: float | None = None,
    seed: int = 0,
) -> None:
    """Compare reverse mode with central differences, for what has no forward mode.

    Each array is moved alone, and named if it is wrong. Parameters and errors: see `check_jvp`.
    """
    leaves, tree = _arrays(tuple(args))
    rng = np.random.default_rng(seed)
    dots = [_direction(rng, v) for v in leaves]
    value, pullback = vjp(function, *tree.build(leaves))
    outputs, out_tree = _arrays(value)
    bars = [_normal(rng, y) if _is_inexact(y) else np.zeros(y.shape) for y in outputs]
    reverse = _arrays(pullback(out_tree.build(bars)))[0]
    weights, floats = (
        [v[k] for k, y in enumerate(outputs) if _is_inexact(y)] for v in (bars, outputs)
    )
    precision = _precision([*leaves, *floats])
    rtol = precision.difference if rtol is None else rtol
    h = precision.step if step is None else step
    noise = 10 * precision.eps * _norm(floats) * _norm(weights) / h
    for k, bar in enumerate(reverse):
        alone = [d if j == k else np.zeros_like(d) for j, d in enumerate(dots)]
        slopes = _difference(function, leaves, tree, alone, h)
        left, right = _dot(weights, slopes), _dot([bar], [dots[k]])
        if not abs(left - right) <= rtol * _norm(weights) * _norm(slopes) + noise:
            raise CheckError(
                f"argument{tree.paths()[k]}: the difference gives <w, J v> = {left:.9g}, reverse "
                f"mode <J^T w, v> = {right:.9g} (rounding: {noise:.1g})"
            )


def check_grads(
    function: Callable[..., Any],
    args: Sequence[Any],
    order: int = 1,
    *,
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Check forward mode, reverse mode, and with `order=2` second derivatives.

    Where an external step has no forward mode, `check_vjp` takes the place of both for order 1.

    Parameters
    ----------
    function : callable
    args : tuple of pytrees
        Floating point or complex.
    order : {1, 2}
        2: the gradient of a random projection of the result is checked by `check_jvp`, and
        its Hessian is symmetric.
    rtol : float, optional
        Relative error allowed against finite differences.
    seed : int

    Raises
    ------
    CheckError
        If a derivative is wrong.
    """
    if order not in (1, 2):
        raise ValueError(f"order={order}: 1 and 2 are supported")
    try:
        check_jvp(function, args, rtol=rtol, seed=seed)
        check_transpose(function, args, seed=seed)
    except ForwardModeError:
        check_vjp(function, args, rtol=rtol, seed=seed)
    if order == 1:
        return
    leaves, tree = _arrays(tuple(args))
    rng = np.random.default_rng(seed + 1)
    weights = [_normal(rng, y) for y in _floats(function(*tree.build([v.copy() for v in leaves])))]

    def projected(*inputs: Any) -> Any:
        results = [y for y in flatten(function(*inputs))[0] if y.dtype.kind in "fc"]
        parts = [np.sum(np.conj(w) * y) for w, y in zip(weights, results, strict=True)]
        return sum(p.real if p.dtype.kind == "c" else p for p in parts)

    gradient = grad(projected, tuple(range(len(args))))
    check_jvp(gradient, args, rtol=rtol, seed=seed)
    _check_symmetry(gradient, leaves, tree, rng)


def _check_symmetry(
    gradient: Callable[..., Any], leaves: Leaves, tree: Tree, rng: np.random.Generator
) -> None:
    u, v = ([_direction(rng, x) for x in leaves] for _ in range(2))
    hu, hv = (_arrays(jvp(gradient, tree.build(leaves), tree.build(d))[1])[0] for d in (u, v))
    left, right = _dot(v, hu), _dot(u, hv)
    precision = _precision(leaves)
    noise = 100 * precision.eps * max(_norm(v) * _norm(hu), _norm(u) * _norm(hv))
    if not abs(left - right) <= precision.identity * max(abs(left), abs(right)) + noise:
        raise CheckError(
            f"the Hessian is not symmetric: <v, H u> = {left:.9g}, <u, H v> = {right:.9g}"
        )


def taylor_test(
    function: Callable[[Any], Any],
    x: Any,
    direction: Any = None,
    order: int = 2,
    *,
    step: float | None = None,
    n_steps: int = 7,
    seed: int = 0,
) -> np.ndarray:
    """Rates at which Taylor remainders of a loss shrink.

    Parameters
    ----------
    function : callable
        Returns a real scalar.
    x : pytree
        Where the derivatives are taken.
    direction : pytree, optional
        Random, of the size of x, by default.
    order : {2, 3}
        2 tests the gradient, 3 the product of the Hessian with the direction as well.
    step : float, optional
        The largest step h, in units of the direction; 1e-2, in single precision 0.5.
    n_steps : int
        Number of steps, each a quarter of the one before.
    seed : int

    Returns
    -------
    rates : ndarray
        log(r_k / r_k+1) / log 4 of the remainders that rounding does not hide; empty where
        none does because the expansion is exact.

    Raises
    ------
    CheckError
        If the last rate is below `order` - 0.2, or if rounding hides the linear term.

    Notes
    -----
    r(h) = abs(f(x + h d) - f(x) - h <g, d> - h^2/2 <d, H d>), the last term for order 3 only.
    Cost: a gradient (and a product with the Hessian) and `n_steps` evaluations.
    """
    if order not in (2, 3):
        raise ValueError(f"order={order}: 2 and 3 are supported")
    leaves, tree = _arrays(x)
    rng = np.random.default_rng(seed)
    dots = [_direction(rng, v) for v in leaves] if direction is None else _arrays(direction)[0]
    precision = _precision(leaves)
    h_max = step if step is not None else (1e-2 if precision is _DOUBLE else 0.5)
    value = float(function(tree.build([v.copy() for v in leaves])))
    slope = _dot(_arrays(grad(function)(tree.build(leaves)))[0], dots)
    curvature = 0.0
    if order == 3:
        product = hvp(function, (tree.build(leaves),), (tree.build(dots),))[1]
        curvature = _dot(_arrays(product)[0], dots)
    steps = h_max / 4.0 ** np.arange(n_steps)
    values = np.array([float(function(tree.build(_moved(leaves, dots, h)))) for h in steps])
    remainders = np.abs(values - value - steps * slope - steps**2 / 2 * curvature)
    scale = float(np.max(np.abs([value, *values])))
    return _rates(remainders, precision.eps * scale, h_max * abs(slope), order)


def _rates(remainders: np.ndarray, rounding: float, linear: float, order: int) -> np.ndarray:
    """Rates of remainders above 100 rounding errors; refuses those below the order."""
    above = remainders > 100 * rounding
    n = int(np.argmin(above)) if not above.all() else len(remainders)
    if n < 2:
        if linear <= 1e4 * rounding or n == 1:
            raise CheckError(
                f"rounding ({rounding:.1g}) hides the Taylor remainders {remainders}: use double "
                "precision, larger steps, or a direction in which the loss changes"
            )
        return np.empty(0)
    rates: np.ndarray = np.log(remainders[: n - 1] / remainders[1:n]) / np.log(4.0)
    if not rates[-1] >= order - 0.2:
        what = "gradient" if order == 2 else "gradient or the product with the Hessian"
        listed = ", ".join(f"{r:.2f}" for r in rates)
        raise CheckError(
            f"the Taylor remainders shrink with the rates {listed}, {order} is expected: the "
            f"{what} is wrong"
        )
    return rates
