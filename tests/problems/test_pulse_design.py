"""Pulse design: limits, derivatives, and that an optimiser improves the profile."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import backsweep as bs
from backsweep.errors import ModelError
from backsweep.problems.pulse_design import PulseDesign
from backsweep.testing import check_grads

SMALL = {"dt": 2e-5, "n_spins": 160, "extent": 0.03, "n_chunks": 2}


def objective(design):
    return lambda parameters: bs.sum_over(
        design.items, lambda item: design.misfit(parameters, item)
    )


def assert_within_limits(design, parameters):
    fields = design.fields(parameters)
    rounding = 1 + 1e-12
    assert np.abs(fields["rf"][0]).max() <= design.max_rf * rounding
    gradient = fields["gradient"][0]
    assert np.abs(gradient).max() <= design.max_gradient
    assert gradient[0] == gradient[-1] == 0
    assert np.abs(fields["slew_rate"][0]).max() <= design.max_slew * rounding


def test_start_excites_the_slice():
    design = PulseDesign(max_rf=30e-6)
    parameters = design.start()
    assert_within_limits(design, parameters)
    fields = design.fields(parameters)
    inside = np.abs(design.target_xy) * design.weight > 0
    outside = (design.target_xy == 0) & (design.weight > 0)
    profile = fields["profile"][0][0]
    assert np.abs(profile[inside]).min() > 0.9
    assert np.abs(profile[outside]).max() < 0.2
    # Refocused: along y on average, and odd about the centre.
    mean = profile[inside].mean()
    np.testing.assert_allclose(mean / abs(mean), 1j, atol=0.02)


def test_fields_have_their_coordinates():
    design = PulseDesign(**SMALL, offsets=[-20, 0, 20])
    parameters = design.start()
    assert set(parameters) == set(design.units) == set(design.dims)
    assert all(values.dtype == np.float64 for values in parameters.values())
    for values, dims, _ in design.fields(parameters).values():
        assert values.shape == tuple(len(design.coords[name][0]) for name in dims)


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_limits_hold_for_any_variables(size):
    rng = np.random.default_rng(0)
    design = PulseDesign(**SMALL)
    for bias in (0, 1):
        parameters = {
            name: size * (rng.standard_normal(design.n_steps) + bias) for name in design.units
        }
        assert_within_limits(design, parameters)


def test_items_add_up_to_the_mean():
    design = PulseDesign(**SMALL, offsets=[0.0, 30.0])
    parameters = design.start()
    total = sum(design.misfit(parameters, item) for item in design.items)
    fields = {name: field[0] for name, field in design.fields(parameters).items()}
    targets = {name: field[0] for name, field in design.targets().items()}
    error = sum(np.abs(fields[name] - target) ** 2 for name, target in targets.items())
    expected = np.nanmean(error)
    np.testing.assert_allclose(total, expected, rtol=1e-12)


@pytest.mark.compiles
def test_gradient():
    design = PulseDesign(**SMALL)
    rng = np.random.default_rng(1)
    parameters = {
        name: values + 0.1 * rng.standard_normal(len(values))
        for name, values in design.start().items()
    }
    check_grads(lambda p: design.misfit(p, design.items[0]), (parameters,))


@pytest.mark.compiles
def test_optimisation_improves_the_profile():
    design = PulseDesign(**SMALL)
    start = design.start()
    names, n = list(start), design.n_steps
    value_and_gradient = bs.value_and_grad(objective(design))

    def split(x):
        return {name: x[k * n : (k + 1) * n] for k, name in enumerate(names)}

    def evaluate(x):
        value, gradient = value_and_gradient(split(x))
        return float(value), np.concatenate([gradient[name] for name in names])

    x = np.concatenate([start[name] for name in names])
    before = evaluate(x)[0]
    result = scipy.optimize.minimize(
        evaluate, x, jac=True, method="L-BFGS-B", options={"maxfun": 100, "ftol": 0, "gtol": 0}
    )
    assert result.fun < 0.01 * before
    assert_within_limits(design, split(result.x))


def test_inversion_has_a_target_of_its_own():
    design = PulseDesign(**SMALL, flip_angle=180, duration=5e-3)
    inside = np.abs(design.coords["position"][0]) < 1e-3
    np.testing.assert_allclose(design.target_z[inside], -1)
    fields = design.fields(design.start())
    assert fields["profile_z"][0][0][inside].max() < -0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 3.0}, "duration=3 s looks like ms"),
        ({"dt": "1e-5"}, "dt='1e-5': give a positive number"),
        ({"flip_angle": 270}, "give at most 180"),
        ({"slice_thickness": 5}, "slice_thickness=5 m looks like mm"),
        ({"max_rf": 20}, "max_rf=20 T looks like uT"),
        ({"max_gradient": 40}, "looks like mT/m"),
        ({"max_slew": -1.0}, "give a positive number"),
        ({"max_slew": np.inf}, "max_slew=inf"),
        ({"transition": 6e-3}, "nothing of the slice remains"),
        ({"extent": 6e-3}, "leaves nothing beside the slice"),
        ({"duration": 5e-5}, "at least 10 intervals"),
        ({"duration": 5e-4}, "give it more time"),
        ({"n_spins": 101}, "no multiple of n_chunks"),
        ({"n_spins": 8}, "leaves none within the slice: give more than 46"),
        ({"n_spins": 100.0}, "give positive integers"),
        ({"offsets": []}, "give a list of frequencies"),
        ({"offsets": ["a"]}, "give a list of frequencies"),
        ({"t1": 0.1, "t2": 1.0}, "exceeds twice t1"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ModelError, match=message):
        PulseDesign(**change)
