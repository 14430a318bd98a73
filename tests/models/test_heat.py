"""Heat conduction against decaying modes."""

import numpy as np
import pytest
from marks import more

from backsweep.errors import ModelError
from backsweep.models import Heat
from backsweep.testing import check_grads, taylor_test


def error_of_decaying_mode(n, dimensions, held):
    """cos between insulated walls or sin between held points, and its exact decay."""
    spacing = 1 / (n - 1) if held else 1 / n
    dt = 0.2 * spacing**2 / 0.7
    n_steps = round(0.05 / dt)
    x = np.arange(n) * spacing if held else (np.arange(n) + 0.5) * spacing
    mode = np.sin(np.pi * x) if held else np.cos(np.pi * x)
    if dimensions == 2:
        mode = mode[:, None] * mode
    model = Heat(mode.shape, spacing, dt, n_steps, held)
    kappa = np.full(mode.shape, 0.7)
    model.check(kappa, mode)
    exact = mode * np.exp(-0.7 * dimensions * np.pi**2 * n_steps * dt)
    return np.abs(model.simulate(kappa, mode) - exact).max()


@pytest.mark.parametrize(("dimensions", "held"), [(1, True), (1, False), (2, True), (2, False)])
def test_second_order_where_dt_follows_the_squared_spacing(dimensions, held):
    errors = [error_of_decaying_mode(n + held, dimensions, held) for n in (16, 32)]
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.3
    assert errors[1] < 1e-3


def varying_problem(shape):
    rng = np.random.default_rng(0)
    model = Heat(shape, 0.1, 1e-3, 40)
    return model, 0.5 + rng.random(shape), rng.random(shape), rng.random(shape)


@pytest.mark.parametrize("shape", [more((12,)), (7, 6)])
def test_heat_is_conserved_and_gradients_are_right(shape):
    model, kappa, initial, source = varying_problem(shape)
    model.check(kappa, initial)
    final = model.simulate(kappa, initial, source)
    expected = initial.sum() + model.n_steps * model.dt * source.sum()
    assert np.isclose(final.sum(), expected, rtol=1e-12)
    check_grads(model.simulate, (kappa, initial, source))
    rates = taylor_test(lambda k: np.sum(model.simulate(k, initial, source) ** 2), kappa)
    assert rates[-1] > 1.9


def test_wrong_use():
    model, kappa, initial, _ = varying_problem((12,))
    with pytest.raises(ModelError, match=r"conductivity has shape \(3,\), the model \(12,\)"):
        model.check(kappa[:3], initial)
    with pytest.raises(ModelError, match="conductivity is -1 m\\^2/s at point \\(0,\\)"):
        model.check(-np.ones(12), initial)
    with pytest.raises(ModelError, match="largest stable time step 0.0005 s, set by the largest"):
        model.check(np.full(12, 10.0), initial)
    with pytest.raises(ModelError, match="initial has shape"):
        model.simulate(kappa, initial[1:])
