"""Infinities and NaN: which step, which field, which line of the user."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import PROBLEMS

import backsweep as bs
from backsweep.comm import SerialComm
from backsweep.errors import BacksweepError, NonFiniteError
from backsweep.inverse import Described, Evaluator, Inversion, Stage, Unknown, invert
from backsweep.ir.cause import is_finite
from backsweep.runtime import locate
from problems import Decay

HERE = Path(__file__)


def line_of(mark: str) -> str:
    """`file:line` of the line of this file that ends with a comment."""
    lines = HERE.read_text().splitlines()
    (number,) = (n for n, text in enumerate(lines, 1) if text.endswith(f"# {mark}"))
    return f"{HERE}:{number}"


def told(function: Callable[[], Any]) -> str:
    """The one warning of a call."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function()
    (warning,) = found
    assert warning.category is RuntimeWarning
    assert warning.filename == str(HERE)
    return str(warning.message)


def silent(function: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function()


@pytest.fixture(params=["0", "1"], ids=["native", "python"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", request.param)
    return str(request.param)


# --------------------------------------------------------------------------- forward


def division(carry: Any, x: Any) -> Any:
    u, t = carry
    u = u + 0.0 / (x - t)  # division
    return (u, t), None


def overflow(carry: Any, x: Any) -> Any:
    u, v = carry
    w = v * 1e4
    u = u + 1e-9 * (w * w)  # overflow
    return (u, 10.0 * v), None


def root(carry: Any, x: Any) -> Any:
    u, t = carry
    u = u + np.sqrt(t)  # root
    return (u, t - 1.0), None


def logarithm(carry: Any, x: Any) -> Any:
    u, t = carry
    t = t - 1.0
    safe = np.where(t > -1e9, 1.0 / (t - t + 2.0), 1.0 / (t - t))
    u = u + safe * np.log(np.maximum(t, 0.0))  # logarithm
    return (u, t), u[0]


# v is 10**k before step k; 1e8 v**2 overflows when v is 1e151.
FORWARD = {
    "division": (division, 37.0, 37),
    "overflow": (overflow, 1.0, 151),
    "root": (root, 41.0, 42),
    "logarithm": (logarithm, 10.0, 9),
}


@pytest.mark.parametrize("name", list(FORWARD))
@pytest.mark.parametrize("is_gradient", [False, True])
def test_step_field_and_line_forward(name: str, is_gradient: bool, executor: str) -> None:
    step, second, at = FORWARD[name]
    u, xs = np.ones(3), np.arange(200.0)
    request = bs.Checkpointing(snapshots=3)

    def loss(u: Any) -> Any:
        carry, _ = bs.scan(step, (u, second), xs, checkpointing=request)
        return np.sum(carry[0])

    sentence = told(lambda: bs.value_and_grad(loss)(u) if is_gradient else loss(u))
    assert sentence.startswith(f"scan of 200 steps: u is not finite after step {at}; ")
    file, line = line_of(name).rsplit(":", 1)
    text = HERE.read_text().splitlines()[int(line) - 1].strip()
    assert sentence.endswith(f"the first such value came from `{text}` at {file}:{line}")


def test_the_step_is_the_first_one(executor: str) -> None:
    """Whatever its place in the pieces into which the search cuts a long scan."""

    def step(u: Any, x: Any) -> Any:
        return u + 1.0 / x, None

    for n, at in ((1, 0), (2, 1), (64, 63), (300, 0), (5000, 4999), (5000, 78), (5000, 79)):
        xs = np.ones(n)
        xs[at] = 0
        sentence = told(lambda xs=xs: bs.scan(step, 0.5, xs))
        assert f" u is not finite after step {at};" in sentence


def test_a_record_alone(executor: str) -> None:
    def step(u: Any, x: Any) -> Any:
        return 0.5 * u, (u, np.log(x - u))  # record

    xs = np.full(100, 2.0)
    xs[33] = 0.5**33
    sentence = told(lambda: bs.scan(step, 1.0, xs))
    assert "record 1 is not finite after step 33; " in sentence
    assert sentence.endswith(line_of("record"))


def test_inner_scans_and_checkpoint(executor: str) -> None:
    def inner(v: Any, x: Any) -> Any:
        return np.sqrt(v - 1.0), None  # inner

    @bs.checkpoint
    def squared(u: Any) -> Any:
        return np.exp(u) / (u - u)  # checkpointed

    def step(u: Any, k: Any) -> Any:
        return bs.scan(inner, u, length=3)[0], None

    assert told(lambda: bs.scan(step, 9.0, length=4)).endswith(line_of("inner"))
    sentence = told(lambda: bs.scan(lambda u, _: (squared(u), None), 1.0, length=4))
    assert sentence.endswith(line_of("checkpointed"))


def test_equal_steps_on_two_lines() -> None:
    """The second function must not be taken for the first one, whose text is the same."""

    def first(u: Any, _: Any) -> Any:
        return 2.0 / (u - 1.0), None  # first of two

    def second(u: Any, _: Any) -> Any:
        return 2.0 / (u - 1.0), None  # second of two

    assert told(lambda: bs.scan(first, 1.0, length=1)).endswith(line_of("first of two"))
    assert told(lambda: bs.scan(second, 1.0, length=1)).endswith(line_of("second of two"))


def test_jit_is_no_scan() -> None:
    sentence = told(lambda: bs.jit(lambda x: np.log(x))(np.zeros(3)))
    assert sentence.startswith("jit: the result is not finite; the first such value came from `")


# --------------------------------------------------------------------------- reverse


def _reverse_loss(request: bs.Checkpointing, n: int = 50) -> Any:
    def step(carry: Any, x: Any) -> Any:
        u, v = carry
        v = v + np.sqrt(np.maximum(u - x, 0.0))  # reverse
        return (0.999 * u, v), None

    def loss(u: Any, xs: Any) -> Any:
        return np.sum(bs.scan(step, (u, 0 * u), xs, checkpointing=request)[0][1])

    return loss


@pytest.mark.parametrize("schedule", ["store_all", "binomial", "disk"])
def test_step_cotangent_and_line_in_reverse(schedule: str, executor: str, tmp_path: Path) -> None:
    """The root of 0 is fine, its derivative is not: 0.5 / sqrt(0)."""
    requests = {
        "store_all": bs.Checkpointing(schedule="store_all"),
        "binomial": bs.Checkpointing(snapshots=3),
        "disk": bs.Checkpointing(memory=0, disk="1 MB", directory=str(tmp_path), snapshots=4),
    }
    loss, u = _reverse_loss(requests[schedule]), np.ones(4)
    xs = np.zeros(50)
    xs[23] = 5.0
    value = silent(lambda: loss(u, xs))
    assert np.isfinite(value)
    out: list[Any] = []
    sentence = told(lambda: out.append(bs.value_and_grad(loss)(u, xs)))
    assert out[0][0] == value and not np.any(np.isfinite(out[0][1]))
    assert sentence.startswith(
        "scan of 50 steps, swept back: the cotangent of u is not finite before step 23; the first "
        "such value came from the derivative of `v = v + np.sqrt("
    )
    assert sentence.endswith(line_of("reverse"))


def test_a_long_reverse_sweep() -> None:
    xs = np.zeros(4000)
    xs[1234] = 5.0
    loss = _reverse_loss(bs.Checkpointing(snapshots=20), 4000)
    assert "before step 1234;" in told(lambda: bs.grad(loss)(np.ones(4), xs))


def test_gradients_of_captured_arrays_and_xs(executor: str) -> None:
    def loss(c: Any, xs: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            return 0.5 * u + np.sqrt(c) * 1.0 + x, None  # captured

        return np.sum(bs.scan(step, np.ones(2), xs)[0])

    sentence = told(lambda: bs.grad(loss)(np.zeros(2), np.ones(5)))
    assert re.search(r"the gradient of \S.* is not finite before step 4;", sentence)
    assert sentence.endswith(line_of("captured"))

    def other(xs: Any) -> Any:
        step = lambda u, wind: (0.5 * u + np.sqrt(wind), None)  # noqa: E731
        return np.sum(bs.scan(step, np.ones(2), xs)[0])

    xs = np.ones((9, 2))
    xs[3, 1] = 0
    sentence = told(lambda: bs.grad(other)(xs))
    assert "the gradient of wind is not finite before step 3;" in sentence


def test_where_residuals_are_kept_instead_of_states() -> None:
    def step(u: Any, _: Any) -> Any:
        return np.log(1 + np.sin(u)) * np.sqrt(u), None  # residuals

    def loss(u: Any) -> Any:
        return np.sum(bs.scan(step, u, length=40)[0])

    reports: list[Any] = []
    gradient = bs.value_and_grad(loss, has_report=True)
    sentence = told(lambda: reports.append(gradient(np.zeros(3))[2]))
    assert "residuals instead of states" in reports[0].scans[0].schedule
    assert "cotangent of u is not finite before step 39;" in sentence
    assert sentence.endswith(line_of("residuals"))


def test_a_second_pullback_after_the_search() -> None:
    xs = np.zeros(50)
    xs[23] = 5.0
    _, pullback = bs.vjp(_reverse_loss(bs.Checkpointing(snapshots=3)), np.ones(4), xs)
    first: list[Any] = []
    told(lambda: first.append(pullback(np.float64(1))))
    told(lambda: first.append(pullback(np.float64(1))))
    np.testing.assert_array_equal(first[0][0], first[1][0])


# --------------------------------------------------------------------------- what is not told


def test_what_came_in_is_not_blamed(executor: str) -> None:
    def loss(u: Any, c: Any, xs: Any) -> Any:
        u, ys = bs.scan(lambda u, x: (0.5 * u + c * x, u), u, xs)
        return np.sum(u) + np.sum(ys)

    good = [np.ones(3), np.ones(3), np.ones((4, 3))]
    for k in range(3):
        for value in (np.nan, np.inf):
            args = [np.array(a) for a in good]
            args[k].flat[0] = value
            assert not np.isfinite(silent(lambda args=args: bs.value_and_grad(loss)(*args))[0])
    _, pullback = bs.vjp(loss, *good)
    silent(lambda: pullback(np.float64(np.nan)))


def test_an_infinite_bound_is_no_excuse() -> None:
    def step(u: Any, x: Any) -> Any:
        return np.minimum(u * u, bound), None  # bounded

    bound = np.array([1.0, np.inf])
    sentence = told(lambda: bs.scan(step, np.full(2, 2.0), length=20))
    assert "u is not finite after step 9;" in sentence and sentence.endswith(line_of("bounded"))


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_a_finite_run_costs_a_look_at_its_results(
    problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("forward", "reverse"):
        monkeypatch.setattr(locate, name, None)
    own = PROBLEMS[problem]()
    report = silent(lambda: own.value_and_grad(bs.Checkpointing(schedule="store_all")))[2]
    assert (report.n_advances, report.n_reverses) == (own.n_steps, own.n_steps)


def test_once_in_a_gradient() -> None:
    """A sum of unstable items; and what follows from an infinite forward sweep."""

    def item(u: Any) -> Any:
        return np.sum(bs.scan(lambda u, _: (u * u, None), u, length=20)[0])

    total = lambda u: bs.sum_over([1.0, 2.0, 3.0], lambda k: item(k * u))  # noqa: E731
    assert "u is not finite" in told(lambda: bs.value_and_grad(total)(np.full(2, 3.0)))


# --------------------------------------------------------------------------- what happens then


def test_an_error_where_it_is_asked_for(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSWEEP_CHECK_NAN", "1")
    grow = lambda u, _: (u * u, None)  # noqa: E731
    with pytest.raises(NonFiniteError, match=r"u is not finite after step 9; .*`grow = lambda"):
        bs.scan(grow, 2.0, length=20)
    with pytest.raises(FloatingPointError):
        bs.grad(lambda u: bs.scan(grow, u, length=20)[0])(2.0)
    with pytest.raises(BacksweepError, match="swept back"):
        bs.grad(_reverse_loss(bs.Checkpointing()))(np.ones(3), np.full(5, 2.0))
    assert bs.scan(grow, 1.0, length=20)[0] == 1


def test_a_search_that_fails_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(locate, "forward", broken)
    sentence = told(lambda: bs.scan(lambda u, _: (u * u, None), 2.0, length=20))
    assert sentence == (
        "scan of 20 steps: u is not finite at its end (not located: OSError: the disk is gone)"
    )


def test_the_search_waits_where_a_job_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backsweep.runtime.stop.is_under_way", lambda: True)
    monkeypatch.setattr("backsweep.runtime.stop.requested", lambda: "SIGUSR1")
    sentence = told(lambda: bs.scan(lambda u, _: (u * u, None), 2.0, length=20))
    assert sentence.endswith("at its end (not located: InterruptedError: SIGUSR1 received)")


def test_external_steps() -> None:
    """Python runs them; the line is that of the scan."""

    class Square:
        def advance(self, consts: Any, u: Any, w: Any) -> Any:
            with np.errstate(over="ignore"):
                return u**2, None

        def reverse(self, consts: Any, u: Any, w: Any, u_bar: Any, y_bar: Any) -> Any:
            return (), 2 * u * u_bar, None

    def loss(u: Any) -> Any:
        return np.sum(bs.scan(bs.external_step(Square()), u, length=20)[0])  # external

    with np.errstate(invalid="ignore", over="ignore"):
        sentence = told(lambda: bs.grad(loss)(np.full(2, 2.0)))
    assert " is not finite after step 9;" in sentence and sentence.endswith(line_of("external"))


def test_a_line_search_into_instability() -> None:
    """One warning for an evaluation of four items, and the inversion comes back from there."""
    problem = Decay(n_steps=400)
    wild = {"rates": np.full(5, 400.0)}
    evaluator = Evaluator(Described(problem), SerialComm())
    sentence = told_anywhere(lambda: evaluator.evaluate(wild))
    assert len(sentence) == 1 and "amount" in sentence[0]
    settings = {"rates": Unknown(scale=1.0)}
    inversion = Inversion((Stage(30, {"n_steps": 400}),), settings, first_step=1500.0)
    found: list[Any] = []
    sentences = told_anywhere(lambda: found.append(invert(problem, inversion)))
    rows = found[0].rows
    n_unstable = sum(np.isinf(row.misfit) for row in rows)
    assert 0 < n_unstable < len(rows) and len(sentences) == n_unstable
    assert min(row.objective for row in rows) < 0.5 * rows[0].objective


def told_anywhere(function: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function()
    return [str(w.message) for w in found if "not finite" in str(w.message)]


# --------------------------------------------------------------------------- the look itself


def test_is_finite() -> None:
    assert is_finite(np.full(3, 1e308)) and is_finite(np.full((2, 3), 3e38, np.float32))
    assert is_finite(np.zeros((0, 3))) and is_finite(np.array([2**62])) and is_finite(None)
    large = np.full((3, 1 << 20), 1e308)
    assert is_finite(large) and is_finite(large.reshape(-1)) and is_finite(large[None])
    for bad in (np.nan, np.inf, -np.inf):
        for shape in ((), (3,), (3, 1 << 19)):
            array = np.zeros(shape, complex)
            array[(-1,) * len(shape)] = complex(0, bad)
            assert not is_finite(array) and is_finite(array.real)
    opposite = np.array([np.inf, -np.inf])
    assert not is_finite(opposite)
