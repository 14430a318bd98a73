"""Burgers' equation against a travelling wave of Cole and Hopf."""

import numpy as np
import pytest
from marks import more

from backsweep.errors import ModelError
from backsweep.models import Burgers
from backsweep.testing import check_grads, taylor_test

NU = 0.05


def travelling_wave(x, t):
    """A front from 1 to 0: the solution of Cole and Hopf for a sum of two exponentials."""
    return 0.5 * (1 - np.tanh((x - 0.5 * t) / (4 * NU)))


def error_of_travelling_wave(n, dimensions):
    spacing = 6.0 / n
    dt = 0.05 * spacing
    n_steps = round(1.0 / dt) // dimensions
    x = (np.arange(n) + 0.5) * spacing - 3
    if dimensions == 2:
        # Along the diagonal s = x + y everything happens twice as fast.
        x = (x[:, None] + x + 3) % 6 - 3
    model = Burgers(x.shape, spacing, dt, n_steps)
    initial = travelling_wave(x, 0.0)
    model.check(initial, NU)
    found = model.simulate(initial, NU)
    # The jump at the periodic edge runs for one unit of length.
    inside = np.abs(x) < 1.5
    exact = travelling_wave(x, dimensions * n_steps * dt)
    return np.abs(found - exact)[inside].mean()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_first_order_against_the_travelling_wave(dimensions):
    errors = [error_of_travelling_wave(n, dimensions) for n in (150, 300)]
    assert 0.75 < np.log2(errors[0] / errors[1]) < 1.2, errors
    assert errors[-1] < 2e-2


@pytest.mark.parametrize("shape", [more((14,)), (6, 7)])
def test_momentum_is_conserved_and_gradients_are_right(shape):
    initial = np.random.default_rng(0).standard_normal(shape)
    model = Burgers(shape, 0.1, 4e-3, 25)
    model.check(initial, NU)
    final = model.simulate(initial, NU)
    assert np.isclose(final.sum(), initial.sum(), atol=1e-12)
    assert np.abs(final).max() < np.abs(initial).max()
    # Smooth and of one sign: differences must not cross the kinks of abs and maximum.
    smooth = 1 + 0.5 * np.sin(0.7 + np.arange(initial.size)).reshape(shape)
    check_grads(model.simulate, (smooth, np.array(NU)))
    rates = taylor_test(lambda u: np.sum(model.simulate(u, NU) ** 4), smooth, step=1e-3)
    assert rates[-1] > 1.9


def test_wrong_use():
    model, wave = Burgers((14,), 0.1, 4e-3, 25), np.ones(14)
    with pytest.raises(ModelError, match=r"initial has shape \(3,\), the model \(14,\)"):
        model.simulate(wave[:3], NU)
    for viscosity in (-1.0, np.nan):
        with pytest.raises(ModelError, match=f"viscosity is {viscosity:g} m"):
            model.check(wave, viscosity)
    with pytest.raises(ModelError, match=r"initial is nan at point \(0,\)"):
        model.check(np.nan * wave, NU)
    with pytest.raises(ModelError, match="stable time step 0.000990099 s, set by the largest"):
        model.check(100 * wave, NU)
