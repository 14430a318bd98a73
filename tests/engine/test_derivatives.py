"""Taylor rates, Hessians through checkpointed scans, repetition, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import simulations

import backsweep as bs
from backsweep import testing

STORE_ALL = bs.Checkpointing(schedule="store_all")
FIVE = bs.Checkpointing(snapshots=5)


def _burgers(checkpointing: Any = FIVE) -> Any:
    loss = simulations.burgers_loss(checkpointing)
    return lambda u: loss(u, 0.3), simulations.burgers().args[0]


@pytest.mark.parametrize("order", [2, 3])
def test_taylor_rates_on_burgers(order: int) -> None:
    loss, u = _burgers()
    rates = testing.taylor_test(loss, u, order=order)
    assert len(rates) >= 3
    assert np.all(np.abs(rates[1:] - order) < 0.1)


def test_taylor_rates_in_the_viscosity() -> None:
    loss, (u, nu) = simulations.burgers_loss(FIVE), simulations.burgers().args
    rates = testing.taylor_test(lambda p: loss(u, p["nu"]), {"nu": nu}, order=3)
    assert abs(rates[-1] - 3) < 0.1


def test_taylor_rates_with_a_complex_state() -> None:
    loss, args = simulations.schroedinger_loss(FIVE), simulations.schroedinger().args
    rates = testing.taylor_test(lambda both: loss(*both), args, order=3)
    assert abs(rates[-1] - 3) < 0.1


def test_hessian_products_have_the_same_bits() -> None:
    direction = np.cos(np.arange(61.0))
    found = []
    for request in (STORE_ALL, FIVE):
        loss, u = _burgers(request)
        found.append(bs.hvp(loss, (u,), (direction,)))
    (gradient, product), (other_gradient, other_product) = found
    assert np.array_equal(gradient, other_gradient)
    assert np.array_equal(product, other_product)
    assert np.array_equal(gradient, bs.grad(loss)(u))


def test_jvp_of_a_gradient_is_a_difference_of_gradients() -> None:
    loss, u = _burgers()
    testing.check_jvp(bs.grad(loss), (u,))


def test_hessian_is_symmetric_and_equal_to_linearize_of_the_gradient() -> None:
    loss, u = _burgers()
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, u.size))
    ha, hb = bs.hvp(loss, (u,), (a,))[1], bs.hvp(loss, (u,), (b,))[1]
    assert np.vdot(b, ha) == pytest.approx(np.vdot(a, hb), rel=1e-11)


def test_linearize_agrees_with_jvp() -> None:
    loss, u = _burgers()
    value, pushforward = bs.linearize(loss, u)
    for k in range(2):
        direction = np.cos((k + 1) * np.arange(61.0))
        expected, slope = bs.jvp(loss, (u,), (direction,))
        assert value == expected
        assert pushforward(direction) == pytest.approx(slope, rel=1e-13)


@pytest.mark.parametrize("where", ["store_all", "memory", "disk"])
def test_pullback_may_be_called_again(where: str, tmp_path: Any) -> None:
    request = {
        "store_all": STORE_ALL,
        "memory": FIVE,
        "disk": bs.Checkpointing(snapshots=5, memory=0, disk="1 GB", directory=str(tmp_path)),
    }[where]
    loss, u = _burgers(request)
    with bs.vjp(loss, u)[1] as pullback:
        first, second, doubled = pullback(1.0)[0], pullback(1.0)[0], pullback(2.0)[0]
        assert pullback.report.n_reverses >= 120
    assert np.array_equal(first, bs.grad(loss)(u))
    assert np.array_equal(second, first)
    np.testing.assert_allclose(doubled, 2 * first, rtol=1e-14)
    with pytest.raises(bs.BacksweepError, match="closed"):
        pullback(1.0)
    assert list(tmp_path.iterdir()) == []


def test_pullback_copies_its_inputs() -> None:
    c = np.linspace(0.5, 1.5, 61)
    u = np.ones(61)

    def loss(u: Any) -> Any:
        return np.sum(bs.scan(lambda v, _: (v - 0.1 * c * v * v, None), u, length=9)[0])

    value, pullback = bs.vjp(loss, u)
    expected = bs.grad(loss)(u.copy())
    u *= 3
    c[:] = 7
    assert np.array_equal(pullback(1.0)[0], expected)


def test_second_gradient_at_a_new_model() -> None:
    """Nothing of the first call (dt, source, model) stays: a fresh process agrees."""
    code = (
        "import json, sys; import numpy as np; import simulations, backsweep as bs\n"
        "def run(scale):\n"
        "    loss = simulations.acoustic_loss(bs.Checkpointing(snapshots=5), (12, 20))\n"
        "    c2, wavelet = simulations.acoustic().args\n"
        "    args = (c2 * np.float32(scale), wavelet)\n"
        "    return bs.value_and_grad(loss, (0, 1), has_report=True)(*args)[2]\n"
        "reports = [run(float(s)) for s in sys.argv[1:]]\n"
        "print(json.dumps([[r.value_fingerprint, r.gradient_fingerprint] for r in reports]))"
    )

    def fingerprints(*scales: str) -> Any:
        command = [sys.executable, "-c", code, *scales]
        folder = simulations.__file__.rpartition("/")[0]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        return json.loads(run.stdout)

    both, alone = fingerprints("1.0", "1.3"), fingerprints("1.3")
    assert both[0] != both[1]
    assert both[1] == alone[0]


@pytest.fixture
def process() -> Iterator[psutil.Process]:
    yield psutil.Process()


def test_memory_is_flat_over_100_gradients(process: psutil.Process) -> None:
    problem = simulations.acoustic()
    gradient = bs.grad(simulations.acoustic_loss(STORE_ALL), (0, 1))
    for _ in range(10):
        gradient(*problem.args)
    before = process.memory_info().rss
    for _ in range(100):
        gradient(*problem.args)
    assert process.memory_info().rss - before < 4_000_000  # one trajectory has 0.5 MB


def test_sum_over_is_the_sum() -> None:
    problem = simulations.acoustic()
    c2, wavelet = problem.args
    sources = [(8, 10), (20, 25), (11, 17)]

    def shot(source: tuple[int, int], c2: Any, wavelet: Any) -> Any:
        return simulations.acoustic_loss(FIVE, source)(c2, wavelet)

    def total(c2: Any, wavelet: Any) -> Any:
        return bs.sum_over(sources, lambda s: shot(s, c2, wavelet))

    value, gradient, report = bs.value_and_grad(total, (0, 1), has_report=True)(c2, wavelet)
    singles = [
        bs.value_and_grad(lambda c, w, s=s: shot(s, c, w), (0, 1))(c2, wavelet) for s in sources
    ]
    assert len(report.scans) == 3
    assert report.n_reverses == 3 * problem.n_steps
    assert value == pytest.approx(sum(v for v, _ in singles), rel=1e-6)
    for k in range(2):
        expected = singles[0][1][k] + singles[1][1][k] + singles[2][1][k]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient[k], expected, rtol=1e-6, atol=1e-6 * scale)
