"""What a user's own step returns is checked; what is wrong is named in one sentence."""

from __future__ import annotations

import ctypes
import re
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_steps import Given

import backsweep as bs
from backsweep.errors import ExternalStepError

U = np.array([1.0, 2.0, 3.0])
Y = np.empty(())


def loss(model: Any, dtype: Any = float, checkpointing: Any = None) -> Any:
    def of(u: Any) -> Any:
        step = bs.external_step(model, y_like=np.empty((), dtype))
        carry, ys = bs.scan(step, {"u": u}, length=4, checkpointing=checkpointing)
        return np.sum(carry["u"] ** 2) + np.sum(ys)

    return of


def message(model: Any, dtype: Any = float) -> str:
    """Of the error, with its notes."""
    with pytest.raises(ExternalStepError) as caught:
        bs.grad(loss(model, dtype))(U.astype(dtype))
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


WRONG_ADVANCES: dict[str, tuple[Any, str]] = {
    "no tuple": (lambda u: {"u": u}, r"must return the tuple \(next_state, y\), it returned dict"),
    "three": (lambda u: ({"u": u}, 0.0, 1), r"\(next_state, y\), it returned 3 values"),
    "structure": (lambda u: ({"v": u}, 0.0), r"next_state has the structure .*'v'.*'u'"),
    "bare": (lambda u: (u, 0.0), r"next_state has the structure PyTreeSpec\(\*\).*'u'"),
    "none": (lambda u: (None, 0.0), r"next_state has the structure PyTreeSpec\(None.*'u'"),
    "shape": (lambda u: ({"u": u[:2]}, 0.0), r"next_state\['u'\] has shape \(2,\).*\(3,\)"),
    "broadcast": (lambda u: ({"u": 1.0}, 0.0), r"next_state\['u'\] has shape \(\).*\(3,\)"),
    "column": (lambda u: ({"u": u[:, None]}, 0.0), r"next_state\['u'\] has shape \(3, 1\)"),
    "dtype": (lambda u: ({"u": u + 0j}, 0.0), r"next_state\['u'\] has dtype complex128.*float64"),
    "long": (lambda u: ({"u": u.astype("g")}, 0.0), r"\['u'\] has dtype float128.*float64"),
    "list": (lambda u: ({"u": [u]}, 0.0), r"next_state\['u'\] is a list.*numpy\.asarray"),
    "object": (lambda u: ({"u": object()}, 0.0), r"next_state\['u'\] is a object"),
    "text": (lambda u: ({"u": "u"}, 0.0), r"next_state\['u'\] is a str"),
    "objects": (lambda u: ({"u": u.astype(object)}, 0.0), r"next_state\['u'\] has dtype object"),
    "masked": (lambda u: ({"u": np.ma.masked_less(u, 2)}, 0.0), r"\['u'\] is a masked array"),
    "missing": (lambda u: ({"u": None}, 0.0), r"next_state\['u'\] is a NoneType"),
    "y": (lambda u: ({"u": u}, u), r"advance: y has shape \(3,\).*shape \(\)"),
    "y none": (lambda u: ({"u": u}, None), r"advance: y is a NoneType"),
    "y pair": (lambda u: ({"u": u}, (1.0, 2.0)), r"advance: y is a tuple"),
    "y dtype": (lambda u: ({"u": u}, 1j), r"advance: y has dtype complex.*float64"),
}
WRONG_REVERSES: dict[str, tuple[Any, str]] = {
    "alone": (lambda bar: {"u": bar}, r"\(consts_bar, state_bar, x_bar\), it returned dict"),
    "two": (lambda bar: ({"u": bar}, None), r"state_bar, x_bar\), it returned 2 values"),
    "structure": (lambda bar: ((), [bar], None), r"reverse: state_bar has the structure .*'u'"),
    "shape": (lambda bar: ((), {"u": bar[:1]}, None), r"state_bar\['u'\] has shape \(1,\)"),
    "scalar": (lambda bar: ((), {"u": 0.0}, None), r"state_bar\['u'\] has shape \(\)"),
    "dtype": (lambda bar: ((), {"u": 1j * bar}, None), r"state_bar\['u'\] has dtype complex128"),
    "list": (lambda bar: ((), {"u": bar.tolist()}, None), r"state_bar\['u'\] is a list"),
    "order": (lambda bar: ({"u": bar}, (), None), r"state_bar has the structure"),
}


@pytest.mark.parametrize("case", WRONG_ADVANCES)
def test_wrong_advance(case: str) -> None:
    wrong, expected = WRONG_ADVANCES[case]
    text = message(Given(advance=wrong))
    assert re.search(expected, text) and text.startswith("Given.advance")
    assert "in step 0 of a scan of 4 steps" in text


@pytest.mark.parametrize("case", WRONG_REVERSES)
def test_wrong_reverse(case: str) -> None:
    wrong, expected = WRONG_REVERSES[case]
    text = message(Given(reverse=wrong))
    assert re.search(expected, text) and text.startswith("Given.reverse")
    assert "in step 3 of a scan of 4 steps" in text


def test_what_would_lose_digits_is_refused() -> None:
    """Not rounded in silence: a float64 cotangent for a float32 state is most often an accident."""
    f8 = lambda u: ({"u": u.astype(np.float64)}, u[0])  # noqa: E731
    expected = r"has dtype float64, expected is an array of shape \(3,\) and dtype float32: "
    with pytest.raises(ExternalStepError, match=expected + r"\.astype\(float32\)"):
        bs.grad(loss(Given(advance=f8), np.float32))(U.astype(np.float32))
    wide = lambda bar: ((), {"u": bar.astype(np.float64)}, None)  # noqa: E731
    with pytest.raises(ExternalStepError, match=expected):
        bs.grad(loss(Given(reverse=wide), np.float32))(U.astype(np.float32))


def test_what_loses_nothing_is_taken() -> None:
    """Narrower floats, integers, and Python numbers, whose dtype means nothing."""
    f4 = lambda u: ({"u": u.astype(np.float32)}, 3)  # noqa: E731
    i8 = lambda bar: ((), {"u": np.round(bar).astype(np.int64)}, None)  # noqa: E731
    gradient = bs.grad(loss(Given(advance=f4, reverse=i8)))(U)
    assert gradient.dtype == np.float64
    np.testing.assert_array_equal(gradient, 2 * U + 4)
    half = lambda u: ({"u": u}, 0.5)  # noqa: E731
    assert bs.grad(loss(Given(advance=half), np.float32))(U.astype("f4")).dtype == np.float32


@pytest.mark.parametrize("zero", [None, ((), None, None), ((), {"u": None}, None)])
def test_none_is_a_zero_cotangent(zero: Any) -> None:
    model = Given(reverse=lambda bar: zero if zero else (None, None, None))
    np.testing.assert_array_equal(bs.grad(loss(model))(U), np.zeros(3))


def test_arguments_cannot_be_written_to() -> None:
    def in_place(u: Any) -> Any:
        u += 1
        return {"u": u}, u[0]

    with pytest.raises(ValueError, match="read-only") as caught:
        bs.grad(loss(Given(advance=in_place)))(U)
    notes = "\n".join(caught.value.__notes__)
    assert "raised by Given.advance, an external step" in notes
    assert "in step 0 of a scan of 4 steps" in notes


def test_compiled_code_that_ignores_the_flag_harms_nothing() -> None:
    """Fortran that works in place gets copies: snapshots and captured values stay."""

    class InPlace:
        def advance(self, c: Any, u: Any, x: Any) -> Any:
            _overwrite(u, u * c)
            _overwrite(c, 0 * c)
            return u, None

        def reverse(self, c: Any, u: Any, x: Any, u_bar: Any, y_bar: Any) -> Any:
            c_bar, result = u * u_bar, c * u_bar
            for a in (c, u, u_bar):
                _overwrite(a, 7 * a)
            return c_bar, result, None

    def of(c: Any, u: Any) -> Any:
        request = bs.Checkpointing(snapshots=2)
        step = bs.external_step(InPlace(), consts=c)
        return np.sum(bs.scan(step, u, length=5, checkpointing=request)[0])

    c = np.array([0.5, 1.5, 2.0])
    c_bar, u_bar = bs.grad(of, (0, 1))(c, U)
    np.testing.assert_allclose(c_bar, 5 * c**4 * U, rtol=1e-14)
    np.testing.assert_allclose(u_bar, c**5, rtol=1e-14)
    assert c[0] == 0.5 and U[0] == 1.0


def _overwrite(array: np.ndarray, values: np.ndarray) -> None:
    """Through the address, as a foreign function does."""
    assert array.flags.c_contiguous and not array.flags.writeable
    ctypes.memmove(array.ctypes.data, values.tobytes(), array.nbytes)


def test_passed_arrays_are_contiguous_and_of_the_declared_dtype() -> None:
    seen: list[Any] = []

    class Looks(Given):
        def advance(self, consts: Any, state: Any, x: Any) -> Any:
            seen.extend([consts, state["u"], x])
            return state, None

    step = bs.external_step(Looks(), consts=np.arange(12.0).reshape(3, 4).T)
    bs.scan(step, {"u": np.arange(6.0).reshape(2, 3)[:, ::2]}, np.arange(3))
    assert all(type(a) is np.ndarray and a.flags.c_contiguous for a in seen)
    assert [a.dtype for a in seen[:3]] == [np.float64, np.float64, np.int64]
    assert [a.shape for a in seen[:3]] == [(4, 3), (2, 2), ()]


# --------------------------------------------------------------------------- exceptions


class Fails:
    """u <- 2 u; raises at a given call of a method, once."""

    def __init__(self, method: str, call: int) -> None:
        self.method, self.calls_left = method, call

    def _count(self, method: str) -> None:
        if method == self.method:
            self.calls_left -= 1
            if self.calls_left == 0:
                raise ArithmeticError("the solver diverged")

    def advance(self, consts: Any, u: Any, x: Any) -> Any:
        self._count("advance")
        return 2 * u, None

    def reverse(self, consts: Any, u: Any, x: Any, u_bar: Any, y_bar: Any) -> Any:
        self._count("reverse")
        return None, 2 * u_bar, None


@pytest.mark.parametrize(("method", "n"), [("advance", 6), ("reverse", 3)])
def test_exceptions_pass_through_with_the_step(method: str, n: int, tmp_path: Path) -> None:
    request = bs.Checkpointing(snapshots=3, memory=0, disk="1 MB", directory=str(tmp_path))
    step = bs.external_step(Fails(method, 7))
    with pytest.raises(ArithmeticError, match="the solver diverged") as caught:
        bs.grad(lambda u: np.sum(bs.scan(step, u, length=10, checkpointing=request)[0]))(U)
    text = "".join(traceback.format_exception_only(caught.value))
    assert f"raised by Fails.{method}, an external step" in text
    assert f"in step {n} of a scan of 10 steps" in text
    assert not list(tmp_path.iterdir())


def test_floating_point_errors_are_handled_as_the_user_wants() -> None:
    """Programs are run with all of them ignored; the user's own code is not."""

    def divide(u: Any) -> Any:
        return {"u": u / (u - 1)}, 0.0

    model = Given(advance=divide)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="divide by zero"):
        bs.grad(loss(model))(U)
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="is not finite after step"):
        bs.grad(loss(model))(U)


@pytest.mark.parametrize("snapshots", [1, 4, 10])
@pytest.mark.parametrize("call", [1, 4, 10])
def test_a_sweep_that_broke_off_is_not_continued(snapshots: int, call: int) -> None:
    """The next pullback begins anew, it never continues half of a sweep."""
    request = bs.Checkpointing(snapshots=snapshots, schedule="binomial")
    step = bs.external_step(Fails("reverse", call))
    _, pullback = bs.vjp(lambda u: bs.scan(step, u, length=10, checkpointing=request)[0], U)
    with pytest.raises(ArithmeticError):
        pullback(np.ones(3))
    assert np.array_equal(pullback(np.ones(3))[0], np.full(3, 2.0**10))


# --------------------------------------------------------------------------- wrong use


def test_missing_methods() -> None:
    class Half:
        def advance(self, consts: Any, state: Any, x: Any) -> Any:
            return state, None

    with pytest.raises(ExternalStepError, match="Half has no method reverse: .*advance"):
        bs.external_step(Half())
    with pytest.raises(ExternalStepError, match="has no method advance"):
        bs.external_step(lambda state, x: (state, None))
    with pytest.raises(ExternalStepError, match=r"an object, not the class Half: Half\(\)"):
        bs.external_step(Half)


def test_an_object_without_external_step() -> None:
    with pytest.raises(bs.BacksweepError, match="scan: the step is a Given.*external_step"):
        bs.scan(Given(), U, length=2)


def test_wrong_descriptions() -> None:
    with pytest.raises(ExternalStepError, match="y_like holds a str"):
        bs.external_step(Given(), y_like={"name": "text"})
    with pytest.raises(ExternalStepError, match="dtype object"):
        bs.external_step(Given(), y_like=np.array([None]))
    with pytest.raises(ExternalStepError, match="state of the external step Given holds a str"):
        bs.scan(bs.external_step(Given()), {"u": U, "name": "text"}, length=2)
    with pytest.raises(ExternalStepError, match="y has the structure .*y_like="):
        bs.scan(bs.external_step(Given()), {"u": U}, length=2)


def test_traced_values_in_the_object_are_refused() -> None:
    """They would be constants to the engine, and the gradient zero."""

    def of(c: Any) -> Any:
        model = Given(advance=lambda u: ({"u": c * u}, 0.0))
        return loss(model)(U)

    with pytest.raises(bs.BacksweepError, match="traced value is used after"):
        bs.grad(of)(2.0)
