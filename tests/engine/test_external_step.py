"""A user's own step goes through the same scans, schedules, stores and checks as a traced one."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_steps import Burgers, Counted, Linear, traced_burgers

import backsweep as bs
from backsweep import testing
from backsweep.schedule.binomial import extra_advances

N_STEPS = 40
U = np.sin(np.linspace(0, 2 * np.pi, 31)) + 0.2
W = 0.1 * np.sin(0.3 * np.arange(N_STEPS))
NU = np.array(0.3)


def burgers_loss(model: Any, checkpointing: Any = None) -> Any:
    """The loss of (u, nu, w); `model` is None for the traced step."""

    def loss(u: Any, nu: Any, w: Any) -> Any:
        step = traced_burgers(nu)
        if model is not None:
            step = bs.external_step(model, consts={"nu": nu}, y_like=np.empty(U[2::7].shape))
        u, ys = bs.scan(step, u, w, checkpointing=checkpointing)
        return 0.5 * np.sum((u - 0.1) ** 2) + np.sum(np.sin(ys) * nu)

    return loss


def burgers_gradient(model: Any, checkpointing: Any = None) -> Any:
    return bs.value_and_grad(burgers_loss(model, checkpointing), (0, 1, 2), has_report=True)(
        U, NU, W
    )


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# --------------------------------------------------------------------------- the gradient


def test_gradient_of_the_traced_step() -> None:
    value, gradient, report = burgers_gradient(Burgers())
    expected_value, expected, _ = burgers_gradient(None)
    assert value == expected_value
    for g, e in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-11, atol=1e-13)
    assert report.scans[0].executor == "python (the step is external: Burgers)"


@pytest.mark.parametrize("snapshots", [1, 2, 5, 13])
@pytest.mark.parametrize("on_disk", [False, True])
def test_same_bits_and_known_counts(snapshots: int, on_disk: bool, tmp_path: Path) -> None:
    _, expected, _ = burgers_gradient(Burgers(), bs.Checkpointing(schedule="store_all"))
    place: Any = {"memory": 0, "disk": "1 MB", "directory": str(tmp_path)} if on_disk else {}
    request = bs.Checkpointing(schedule="binomial", snapshots=snapshots, **place)
    model = Burgers()
    _, gradient, report = burgers_gradient(model, request)
    assert_same(gradient, expected)
    assert report.n_advances == model.n_advances == extra_advances(N_STEPS, snapshots) + 1
    assert report.n_reverses == model.n_reverses == N_STEPS
    assert (report.scans[0].n_disk_writes > 0) == (on_disk and snapshots > 1)
    assert not list(tmp_path.iterdir())


def test_store_all_in_both_stores(tmp_path: Path) -> None:
    model = Burgers()
    _, expected, report = burgers_gradient(model, bs.Checkpointing(schedule="store_all"))
    assert (report.n_advances, report.n_reverses) == (N_STEPS, N_STEPS)
    assert (model.n_advances, model.n_reverses) == (N_STEPS, N_STEPS)
    request = bs.Checkpointing(schedule="store_all", memory=0, disk="1 MB", directory=str(tmp_path))
    assert_same(burgers_gradient(Burgers(), request)[1], expected)


def test_budget_in_bytes() -> None:
    model = Burgers()
    _, _, report = burgers_gradient(model, bs.Checkpointing(memory=2000))
    (scan,) = report.scans
    assert scan.n_snapshots == 7 and scan.snapshot_bytes_memory <= 2000
    assert model.n_advances == extra_advances(N_STEPS, 7) + 1


def test_pullback_again() -> None:
    request = bs.Checkpointing(schedule="binomial", snapshots=4)
    _, pullback = bs.vjp(burgers_loss(Burgers(), request), U, NU, W)
    assert_same(pullback(1.0), burgers_gradient(Burgers())[1])
    assert_same(pullback(1.0), burgers_gradient(Burgers())[1])


def test_float32_stays() -> None:
    u, nu, w = (np.asarray(v, np.float32) for v in (U, NU, W))

    class Single(Burgers):
        def reverse(self, *args: Any) -> Any:
            nu_bar, u_bar, x_bar = super().reverse(*args)
            return {"nu": np.float32(nu_bar["nu"])}, u_bar, np.float32(x_bar)

    def loss(step: Any) -> Any:
        carry, ys = bs.scan(step, u, w)
        return np.sum(carry**2) + np.sum(ys)

    y_like = np.empty(5, np.float32)
    own = bs.grad(lambda nu: loss(bs.external_step(Single(), consts={"nu": nu}, y_like=y_like)))
    traced = bs.grad(lambda nu: loss(traced_burgers(nu)))
    assert own(nu).dtype == np.float32
    np.testing.assert_allclose(own(nu), traced(nu), rtol=1e-4)


def test_complex_cotangents_are_those_of_the_real_inner_product() -> None:
    rng = np.random.default_rng(0)
    matrix = 0.4 * (rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4)))
    start = rng.standard_normal(4) + 1j * rng.standard_normal(4)

    def loss(step: Any, u: Any) -> Any:
        return np.sum(np.abs(bs.scan(step, u, length=6)[0] - 1) ** 2)

    own = lambda a, u: loss(bs.external_step(Linear(), consts=a), u)  # noqa: E731
    traced = lambda a, u: loss(lambda u, _: (a @ u, None), u)  # noqa: E731
    for g, e in zip(*(bs.grad(f, (0, 1))(matrix, start) for f in (own, traced)), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-11)


def test_integers_have_no_cotangent() -> None:
    def loss(rate: Any, u: Any) -> Any:
        holder = (np.empty(3), np.empty((), np.int64))
        step = bs.external_step(Counted(), consts=rate, y_like=holder)
        state, (squares, counts) = bs.scan(step, {"u": u, "count": 0}, length=5)
        return np.sum(state["u"] ** 3) + np.sum(squares) + 0.0 * np.sum(counts)

    def traced(rate: Any, u: Any) -> Any:
        u, ys = bs.scan(lambda u, _: (u - rate * u**2, u**2), u, length=5)
        return np.sum(u**3) + np.sum(ys)

    u = np.array([0.3, 0.8, 1.1])
    for g, e in zip(*(bs.grad(f, (0, 1))(0.2, u) for f in (loss, traced)), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12)
    step = bs.external_step(Counted(), consts=0.2, y_like=(np.empty(3), np.int64(0)))
    state, (_, counts) = bs.scan(step, {"u": u, "count": 0}, length=5)
    assert state["count"] == 5 and counts.tolist() == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------------- where it may stand


def test_among_numpy_code_in_a_traced_step() -> None:
    def loss(make: Any) -> Any:
        def of(u: Any, nu: Any) -> Any:
            def step(carry: Any, w: Any) -> Any:
                u, mean = carry
                scaled = np.tanh(u) * nu
                u_next, y = make(nu)(scaled, w * nu)
                u_next[3] += mean
                return (u_next, np.mean(u_next * u)), y * scaled[:5]

            (u, mean), ys = bs.scan(step, (u, 0.1), W, checkpointing=bs.Checkpointing(snapshots=3))
            return np.sum(u**2) + mean + np.sum(ys**2)

        return of

    external = lambda nu: bs.external_step(  # noqa: E731
        Burgers(), consts={"nu": nu}, y_like=np.empty(5)
    )
    own = bs.value_and_grad(loss(external), (0, 1))(U, NU)
    traced = bs.value_and_grad(loss(traced_burgers), (0, 1))(U, NU)
    np.testing.assert_allclose(own[0], traced[0], rtol=1e-13)
    for g, e in zip(own[1], traced[1], strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("wrap", [lambda f: f, bs.checkpoint, bs.jit])
def test_outside_of_a_scan(wrap: Any) -> None:
    def loss(make: Any) -> Any:
        def of(u: Any, nu: Any, w: Any) -> Any:
            u, y = wrap(lambda u, nu, w: make(nu)(u * nu, w))(u, nu, w)
            return np.sum(np.sin(u)) + np.sum(y * u[:5])

        return of

    external = lambda nu: bs.external_step(  # noqa: E731
        Burgers(), consts={"nu": nu}, y_like=np.empty(5)
    )
    args = (U, NU, np.array(0.4))
    own, traced = (bs.grad(loss(f), (0, 1, 2))(*args) for f in (external, traced_burgers))
    for g, e in zip(own, traced, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12, atol=1e-14)
    value, y = external(0.3)(U, 0.4)  # no trace at all
    assert_same((value, y), traced_burgers(0.3)(U, 0.4))
    value[0] = 0  # the caller's


def test_in_a_sum_of_shots() -> None:
    def loss(model: Any) -> Any:
        def of(nu: Any) -> Any:
            shot = lambda k: burgers_loss(model)(U + 0.1 * k, nu, W)  # noqa: E731
            return bs.sum_over(range(3), shot)

        return bs.grad(of)

    np.testing.assert_allclose(loss(Burgers())(NU), loss(None)(NU), rtol=1e-11)


def test_reverse_may_use_backsweep() -> None:
    class Own:
        def advance(self, a: Any, u: Any, x: Any) -> Any:
            return bs.scan(lambda u, _: (np.sin(a * u), None), u, length=3)[0], None

        def reverse(self, a: Any, u: Any, x: Any, u_bar: Any, y_bar: Any) -> Any:
            _, pullback = bs.vjp(lambda a, u: self.advance(a, u, x)[0], a, u)
            return (*pullback(u_bar), None)

    def outer(a: Any) -> Any:
        return np.sum(bs.scan(bs.external_step(Own(), consts=a), U, length=4)[0])

    def flat(a: Any) -> Any:
        return np.sum(bs.scan(lambda u, _: (np.sin(a * u), None), U, length=12)[0])

    np.testing.assert_allclose(bs.grad(outer)(0.9), bs.grad(flat)(0.9), rtol=1e-12)


def test_two_objects_of_one_class_are_two_steps() -> None:
    """Their texts are the same; whatever is remembered by text must not mix them up."""

    def loss(u: Any) -> Any:
        for factor in (2.0, 3.0):
            step = bs.external_step(Linear(factor * np.eye(2)), consts=None)
            u, _ = bs.scan(step, u, length=2, checkpointing=bs.Checkpointing(schedule="store_all"))
        return np.sum(u)

    np.testing.assert_array_equal(bs.grad(loss)(np.ones(2)), [36.0, 36.0])


def test_what_does_not_depend_on_the_input_is_not_reversed() -> None:
    class OneWay(Burgers):
        def reverse(self, *args: Any) -> Any:
            raise NotImplementedError

    def loss(a: Any) -> Any:
        step = bs.external_step(OneWay(), consts={"nu": 0.3}, y_like=np.empty(5))
        u, ys = bs.scan(step, U, W)
        frozen, _ = bs.scan(step, bs.stop_gradient(a * U), W)
        return np.sum(u * a) + np.sum(ys) + np.sum(frozen)

    end = burgers_end()
    np.testing.assert_allclose(bs.grad(loss)(1.0), np.sum(end), rtol=1e-12)


def burgers_end() -> Any:
    return bs.scan(traced_burgers(0.3), U, W)[0]


def test_objects_are_not_kept() -> None:
    model = Burgers()
    alive = weakref.ref(model)
    burgers_gradient(model)
    del model
    gc.collect()
    assert alive() is None


# --------------------------------------------------------------------------- forward mode


@pytest.mark.parametrize("mode", ["jvp", "hvp", "linearize"])
@pytest.mark.parametrize("in_scan", [True, False])
def test_forward_mode_is_refused_before_anything_runs(mode: str, in_scan: bool) -> None:
    model = Burgers()

    def loss(nu: Any) -> Any:
        if in_scan:
            return burgers_loss(model)(U, nu, W)
        step = bs.external_step(model, consts={"nu": nu}, y_like=np.empty(5))
        return np.sum(step(U, 0.1)[0])

    with pytest.raises(bs.BacksweepError, match="external step Burgers.*use grad"):
        if mode == "linearize":
            bs.linearize(loss, NU)
        else:
            getattr(bs, mode)(loss, (NU,), (np.array(1.0),))
    assert model.n_advances == 0


def test_second_derivatives_in_reverse_are_refused() -> None:
    def loss(nu: Any) -> Any:
        step = bs.external_step(Burgers(), consts={"nu": nu}, y_like=np.empty(5))
        return np.sum(step(U, 0.1)[0])

    with pytest.raises(bs.BacksweepError, match="second derivatives .* external step Burgers"):
        bs.grad(bs.grad(loss))(NU)
    with pytest.raises(bs.BacksweepError, match="reverse mode over reverse mode"):
        bs.grad(bs.grad(lambda nu: burgers_loss(Burgers())(U, nu, W)))(NU)


def test_forward_mode_in_which_the_step_takes_no_part() -> None:
    def function(a: Any) -> Any:
        step = bs.external_step(Burgers(), consts={"nu": 0.3}, y_like=np.empty(5))
        return a**3 * np.sum(bs.scan(step, U, W)[0])

    total = np.sum(burgers_end())
    np.testing.assert_allclose(bs.jvp(function, (2.0,), (1.0,))[1], 12 * total)
    np.testing.assert_allclose(bs.linearize(function, 2.0)[1](1.0), 12 * total)
    np.testing.assert_allclose(bs.hvp(function, (2.0,), (1.0,))[1], 12 * total)


# --------------------------------------------------------------------------- the checkers


def test_checkers_pass() -> None:
    loss = burgers_loss(Burgers(), bs.Checkpointing(snapshots=6))
    testing.check_grads(loss, (U, NU, W))
    rates = testing.taylor_test(lambda p: loss(p["u"], p["nu"], W), {"u": U, "nu": NU})
    assert abs(rates[-1] - 2) < 0.1
    with pytest.raises(bs.BacksweepError, match="forward mode"):
        testing.check_grads(loss, (U, NU, W), order=2)


@pytest.mark.parametrize(("item", "argument"), [("state", 0), ("consts", 1), ("x", 2)])
def test_checkers_notice_a_reverse_that_is_off_by_half_a_permille(item: str, argument: int) -> None:
    loss = burgers_loss(Burgers(**{item: 1.0005}))
    with pytest.raises(testing.CheckError, match=rf"argument\[{argument}\]"):
        testing.check_grads(loss, (U, NU, W))
    start: Any = (U, NU, W)

    def alone(value: Any) -> Any:
        return loss(*(value if k == argument else v for k, v in enumerate(start)))

    with pytest.raises(testing.CheckError, match="gradient is wrong"):
        testing.taylor_test(alone, start[argument])


def test_several_outputs_are_checked_too() -> None:
    def outputs(model: Any) -> Any:
        return lambda u, nu: bs.scan(
            bs.external_step(model, consts={"nu": nu}, y_like=np.empty(5)), u, W
        )

    testing.check_vjp(outputs(Burgers()), (U, NU))
    with pytest.raises(testing.CheckError):
        testing.check_vjp(outputs(Burgers(consts=1.0005)), (U, NU))


def test_example() -> None:
    path = Path(__file__).parents[2] / "examples" / "own_step.py"
    command = [sys.executable, str(path), "--evaluations", "4", "--memory", "50 kB"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "the step is external: Aquifer" in text and "Binomial: 64 steps, 6 snapshots" in text
    difference = re.search(r"central difference: (\S+)", text)
    assert difference is not None and float(difference[1]) < 1e-6
    misfits = re.search(r"misfit (\S+) -> (\S+) in", text)
    assert misfits is not None and float(misfits[2]) < 0.5 * float(misfits[1])
