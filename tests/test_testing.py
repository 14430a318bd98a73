"""The checkers pass where derivatives are right, and fail where they are 0.05 % wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep import testing
from backsweep.ir import Primitive
from backsweep.ir.builder import scalar
from backsweep.primitives import elementwise as ew

X = np.linspace(0.3, 1.9, 7)
Z = X + 1j * np.cos(X)
OFF = 1.0005


def steps(u: Any, rate: float = 0.05) -> Any:
    """Twenty compiled steps, a record of each."""

    def step(u: Any, _: Any) -> Any:
        u = u + rate * np.sin(u) * np.exp(-u)
        return u, u[0] * u[1]

    return bs.scan(step, u, length=20, checkpointing=bs.Checkpointing(snapshots=4))


def loss(u: Any) -> Any:
    u, ys = steps(u)
    return np.sum(u * u) + np.sum(np.sin(ys))


@contextmanager
def replaced(primitive: Primitive, **rules: Any) -> Iterator[None]:
    """A primitive with other rules for a while."""
    old = {name: getattr(primitive, name) for name in rules}
    for name, rule in rules.items():
        object.__setattr__(primitive, name, rule)
    try:
        yield
    finally:
        for name, rule in old.items():
            object.__setattr__(primitive, name, rule)


def off_partial(primitive: Primitive) -> Any:
    """The first partial derivative, 0.05 % too large."""
    assert primitive.partials is not None
    right = primitive.partials[0]
    assert right is not None

    def wrong(b: Any, params: Any, x: Any, out: Any) -> Any:
        value = right(b, params, x, out)
        return b(ew.mul, scalar(OFF, value), value)

    return replaced(primitive, partials=(wrong, *primitive.partials[1:]))


def off_transpose(primitive: Primitive) -> Any:
    right: Callable[..., Any] = primitive.transpose  # type: ignore[assignment]

    def wrong(b: Any, eqn: Any, cts: Any, linear: Any) -> Any:
        bars = right(b, eqn, cts, linear)
        return [bar if bar is None else b(ew.mul, scalar(OFF, bar), bar) for bar in bars]

    return replaced(primitive, transpose=wrong)


# --------------------------------------------------------------------------- right


def test_pytrees() -> None:
    def function(d: Any, y: Any) -> Any:
        return {"a": np.exp(d["x"]) * y, "mask": d["x"] > 1, "b": (np.sum(d["z"] * y),)}

    testing.check_grads(function, ({"x": X, "z": 2 * X}, np.array(0.7)), order=2)


def test_simulation() -> None:
    testing.check_grads(steps, (X,), order=2)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_complex(dtype: Any) -> None:
    function = lambda z: (np.exp(z) * np.conj(z), np.abs(z))  # noqa: E731
    testing.check_grads(function, (Z.astype(dtype),), order=2)


def test_float32() -> None:
    testing.check_grads(steps, (X.astype(np.float32),), order=2)


def test_parameters_of_very_different_size() -> None:
    """Velocities in m/s beside times in microseconds."""
    function = lambda v, t: np.sum(np.sqrt(v) * np.sin(1e6 * t))  # noqa: E731
    testing.check_grads(function, (3000 * X, 1e-6 * X), order=2)


def test_zero_derivative_and_zero_argument() -> None:
    testing.check_grads(lambda x: np.floor(x) + 0 * x, (X,))
    testing.check_grads(lambda x: x * x, (np.zeros(3),))


def test_arguments_stay() -> None:
    def function(x: Any) -> Any:
        x *= 2
        return x * x

    start = X.copy()
    testing.check_grads(function, (start,), order=2)
    assert np.array_equal(start, X)


@pytest.mark.parametrize("order", [2, 3])
def test_taylor_rates(order: int) -> None:
    for function, x in [(loss, X), (lambda d: loss(d["x"]) * d["s"], {"x": X, "s": np.ones(())})]:
        rates = testing.taylor_test(function, x, order=order)
        assert len(rates) >= 2 and np.all(np.abs(rates - order) < 0.1)


def test_taylor_of_exact_expansions() -> None:
    assert testing.taylor_test(lambda x: 3 * np.sum(x), X).size == 0
    assert testing.taylor_test(lambda x: np.sum(x * x), X, order=3).size == 0


def test_taylor_in_float32_and_with_a_direction() -> None:
    rates = testing.taylor_test(lambda x: np.sum(np.sin(x) * x * x), X.astype(np.float32))
    assert abs(rates[-1] - 2) < 0.2
    assert abs(testing.taylor_test(loss, X, np.ones(7))[-1] - 2) < 0.1


# --------------------------------------------------------------------------- wrong


def test_a_partial_derivative_that_is_slightly_wrong() -> None:
    for primitive, function in ((ew.sin, np.sin), (ew.exp, np.exp), (ew.sqrt, np.sqrt)):
        with off_partial(primitive):
            for check in (testing.check_jvp, testing.check_grads):
                with pytest.raises(testing.CheckError, match="directional derivative"):
                    check(function, (X,))
            testing.check_transpose(function, (X,))  # consistent, though wrong
            with pytest.raises(testing.CheckError, match="gradient is wrong"):
                testing.taylor_test(lambda x, f=function: np.sum(f(x)), X)
        testing.check_grads(function, (X,))


def test_a_slightly_wrong_rule_inside_a_compiled_step() -> None:
    """Compiled steps are remembered by their text: each rule gets a rate of its own."""
    with off_partial(ew.sin):
        with pytest.raises(testing.CheckError):
            testing.check_grads(lambda u: steps(u, 0.051), (X,))
        with pytest.raises(testing.CheckError):
            testing.taylor_test(lambda u: np.sum(steps(u, 0.051)[0]), X)
    with off_transpose(ew.mul), pytest.raises(testing.CheckError, match="<w, J v>"):
        testing.check_grads(lambda u: steps(u, 0.052), (X,))


def test_a_transpose_that_is_slightly_wrong() -> None:
    for primitive, function in ((ew.mul, lambda x: x * X), (ew.neg, np.negative)):
        with off_transpose(primitive):
            testing.check_jvp(function, (X,))
            with pytest.raises(testing.CheckError, match="<w, J v>"):
                testing.check_transpose(function, (X,))
            with pytest.raises(testing.CheckError):
                testing.check_grads(function, (X,))


def test_a_second_derivative_that_is_slightly_wrong() -> None:
    with off_partial(ew.cos):
        testing.check_grads(np.sin, (X,))
        with pytest.raises(testing.CheckError):
            testing.check_grads(np.sin, (X,), order=2)
        testing.taylor_test(lambda x: np.sum(np.sin(x)), X, order=2)
        with pytest.raises(testing.CheckError, match="product with the Hessian"):
            testing.taylor_test(lambda x: np.sum(np.sin(x)), X, order=3)


def test_a_conjugate_that_is_missing() -> None:
    def transpose(b: Any, eqn: Any, cts: Any, linear: Any) -> Any:
        x, y = eqn.inputs
        return [b(ew.mul, cts[0], y), None] if linear[0] else [None, b(ew.mul, x, cts[0])]

    with replaced(ew.mul, transpose=transpose), pytest.raises(testing.CheckError):
        testing.check_transpose(lambda z: z * Z, (Z,))


def test_a_gradient_that_is_stopped() -> None:
    function = lambda x: np.sum(x * bs.stop_gradient(x))  # noqa: E731
    for check in (testing.check_jvp, testing.check_grads):
        with pytest.raises(testing.CheckError):
            check(function, (X,))
    with pytest.raises(testing.CheckError, match="rates 1.0"):
        testing.taylor_test(function, X)


def test_nan_is_wrong() -> None:
    with off_partial(ew.sin), pytest.raises(testing.CheckError):
        testing.check_jvp(lambda x: np.sin(x) * np.where(x > 1, np.nan, 1.0), (X,))


def test_hessian_that_is_not_symmetric() -> None:
    leaves, tree = testing._arrays((X[:2],))
    gradient = lambda x: bs.numpy.stack([x[1] * x[1], x[0]])  # noqa: E731
    with pytest.raises(testing.CheckError, match="not symmetric"):
        testing._check_symmetry(gradient, leaves, tree, np.random.default_rng(0))


def test_rounding_that_hides_the_remainders() -> None:
    with pytest.raises(testing.CheckError, match="rounding"):
        testing.taylor_test(lambda x: 1e9 + np.sum(np.sin(x)), X)


def test_orders_that_do_not_exist() -> None:
    for call in (testing.check_grads, testing.taylor_test):
        with pytest.raises(ValueError, match="order=4"):
            call(np.sum, (X,), order=4)
