"""Whole inversions: values, gradients, optimisers, stages, budgets."""

from __future__ import annotations

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import SerialComm
from backsweep.errors import ModelError
from backsweep.inverse import (
    Described,
    Evaluator,
    History,
    Inversion,
    Stage,
    Tikhonov,
    Unknown,
    invert,
)
from backsweep.inverse.units import amplified
from problems import Decay, Plain


@pytest.fixture(scope="module")
def decay():
    return Decay()


def evaluator(problem, **options):
    return Evaluator(Described(problem), SerialComm(), **options)


def test_the_sum_over_items_is_that_of_sum_over(decay):
    found = evaluator(decay).evaluate(decay.start())
    value, gradient = bs.value_and_grad(
        lambda p: bs.sum_over(decay.items, lambda item: decay.misfit(p, item))
    )(decay.start())
    assert found.value == value
    assert np.array_equal(found.gradient["rates"], gradient["rates"])
    assert found.cost.n_steps == 4 * 50


def test_the_budget_reaches_scans_that_ask_for_nothing(decay):
    few = evaluator(decay, checkpointing=bs.Checkpointing(snapshots=5)).evaluate(decay.start())
    many = evaluator(decay).evaluate(decay.start())
    assert few.cost.schedule == "Binomial"
    assert few.cost.n_advances > many.cost.n_advances == 200
    assert few.value_fingerprint == many.value_fingerprint
    assert few.gradient_fingerprint == many.gradient_fingerprint


def test_gauss_newton_is_the_hessian_where_the_data_fit(decay):
    """There residuals vanish, and with them the term that Gauss and Newton leave out."""
    direction = {"rates": np.array([1.0, -2.0, 0.5, 0.1, 3.0])}
    product = evaluator(decay).gauss_newton(decay.true(), direction)["rates"]
    _, expected = bs.hvp(
        lambda p: bs.sum_over(decay.items, lambda item: decay.misfit(p, item)),
        (decay.true(),),
        (direction,),
    )
    np.testing.assert_allclose(product, expected["rates"], rtol=1e-9)


@pytest.mark.parametrize(
    "inversion",
    [
        Inversion((Stage(60),)),
        Inversion((Stage(60),), preconditioner="illumination"),
        Inversion((Stage(60),), {"rates": Unknown(transform="logistic", bounds=(0.01, 3.0))}),
        Inversion((Stage(20, {"n_steps": 10}), Stage(60, {"n_steps": 50}))),
        Inversion((Stage(60),), method="Gauss-Newton-CG"),
        Inversion((Stage(60),), {"rates": Unknown(transform="log")}, method="Gauss-Newton-CG"),
    ],
    ids=["plain", "illumination", "logistic", "stages", "gauss-newton", "gauss-newton-log"],
)
def test_the_true_rates_are_found(decay, inversion):
    history = invert(decay, inversion)
    assert history.status == "finished"
    np.testing.assert_allclose(history.best["rates"], decay.true()["rates"], rtol=1e-4)
    assert len(history.rows) <= sum(stage.evaluations for stage in inversion.stages)


def test_gauss_newton_needs_far_fewer_gradients(decay):
    newton = invert(decay, Inversion((Stage(200),), method="Gauss-Newton-CG"))
    steps = [row.misfit for row in newton.rows]
    assert min(steps[:12]) < 1e-8 * steps[0]


def test_a_budget_of_evaluations_is_kept(decay):
    history = invert(decay, Inversion((Stage(4),)))
    assert len(history.rows) == 4
    assert history.reason == "all evaluations are spent"


def test_bounds_hold(decay):
    bounds = (0.35, 0.7)
    history = invert(decay, Inversion((Stage(40),), {"rates": Unknown(bounds=bounds)}))
    for _, model in history.models:
        assert np.all((model["rates"] >= bounds[0] - 1e-12) & (model["rates"] <= bounds[1] + 1e-12))


def test_masked_values_stay_bit_for_bit(decay):
    mask = np.array([True, False, True, False, True])
    history = invert(decay, Inversion((Stage(10),), {"rates": Unknown(mask=mask)}))
    assert np.all(history.best["rates"][~mask] == 0.5)
    assert np.all(history.best["rates"][mask] != 0.5)


def test_regularisation_holds_the_model_back(decay):
    heavy = {"rates": (Tikhonov(100.0, order=0),)}
    free = invert(decay, Inversion((Stage(40),))).best["rates"]
    held = invert(decay, Inversion((Stage(40),), regularisers=heavy)).best["rates"]
    assert np.linalg.norm(held - 0.5) < 0.3 * np.linalg.norm(free - 0.5)


def test_complex_and_scalar_parameters():
    history = invert(Plain(), Inversion((Stage(40),)))
    np.testing.assert_allclose(history.best["a"], [1j, 1j], atol=1e-6)
    np.testing.assert_allclose(history.best["b"], 1.5, rtol=1e-6)


def test_what_is_recorded(decay):
    history = invert(decay, Inversion((Stage(5),)))
    variables = history.variables()
    assert variables["rates"].dims == ("iteration", "tracer")
    assert variables["rates"].unit == "1/s"
    assert np.array_equal(variables["rates"].values[0], decay.start()["rates"])
    assert variables["misfit"].values.shape == (5,)
    assert np.array_equal(variables["rates_true"].values, decay.true()["rates"])
    assert variables["left_best"].unit == "mol"
    error = history.model_error(decay.start())["rates"]
    true = decay.true()["rates"]
    assert error == pytest.approx(np.linalg.norm(0.5 - true) / np.linalg.norm(true))


def test_a_history_is_there_after_an_interruption(decay):
    history = History(Described(decay))

    def stop(history):
        if len(history.rows) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(decay, Inversion((Stage(9),)), on_evaluation=stop, history=history)
    assert len(history.rows) == 3
    assert history.variables()["misfit"].values.shape == (3,)


class Broken(Plain):
    def __init__(self, **members):
        for name, value in members.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("problem", "inversion", "message"),
    [
        (object(), Inversion((Stage(1),)), "has no items"),
        (Broken(items=()), Inversion((Stage(1),)), "has no items"),
        (Broken(start=lambda: {"a": np.arange(3)}), Inversion((Stage(1),)), "dtype int64"),
        (Broken(start=lambda: {"a": np.array([np.nan])}), Inversion((Stage(1),)), "not finite"),
        (Broken(items=iter([1.0])), Inversion((Stage(1),)), "length"),
        (Broken(items={"a": 1.0}), Inversion((Stage(1),)), "of type dict"),
        (Broken(start=dict), Inversion((Stage(1),)), "no parameter"),
        (Broken(start=lambda: np.ones(3)), Inversion((Stage(1),)), "returned ndarray"),
        (Broken(start=lambda: {"a": [[1.0], [1.0, 2.0]]}), Inversion((Stage(1),)), "inhomogen"),
        (Broken(start=lambda: {"a": np.ones(0)}), Inversion((Stage(1),)), "no values"),
        (Broken(true=lambda: {"b": np.ones(7)}), Inversion((Stage(1),)), r"true\(\).*\(7,\)"),
        (Broken(at_stage=lambda: None), Inversion((Stage(1, {"k": 3}),)), "argument .k."),
        (Broken(at_stage=lambda k: None), Inversion((Stage(1, {"k": 3}),)), "NoneType"),
        (
            Broken(masks={"a": np.ones(2, bool)}),
            Inversion((Stage(1),), {"a": Unknown(mask=np.ones(3, bool))}),
            "a mask of shape",
        ),
        (Plain(), Inversion((Stage(1, {"lowpass": 3}),)), "no at_stage"),
        (Plain(), Inversion((Stage(1),), {"c": Unknown()}), "'c'"),
        (Plain(), Inversion((Stage(1),), regularisers={"c": ()}), "regularisation .*'c'"),
        (Plain(), Inversion((Stage(1),), method="Gauss-Newton-CG"), "simulate and compare"),
        (Plain(), Inversion((Stage(1),), preconditioner="illumination"), "illumination"),
        (
            Decay(),
            Inversion((Stage(1),), {"rates": Unknown(bounds=(0, 1))}, method="Gauss-Newton-CG"),
            "knows no bounds",
        ),
    ],
)
def test_what_does_not_fit_is_refused(problem, inversion, message):
    with pytest.raises(ModelError, match=message):
        invert(problem, inversion)


@pytest.mark.parametrize("method", ["L-BFGS-B", "Gauss-Newton-CG"])
def test_a_step_into_instability_is_taken_back(decay, method, monkeypatch):
    """Here rates above 0.75 count as unstable; the true ones reach 0.9."""
    misfit = decay.misfit

    def unstable(parameters, item):
        limit = np.where(np.max(parameters["rates"]) > 0.75, np.inf, 1.0)
        return misfit(parameters, item) * limit

    monkeypatch.setattr(decay, "misfit", unstable)
    unknowns = {"rates": Unknown(scale=1.0)}
    history = invert(decay, Inversion((Stage(40),), unknowns, method=method, first_step=0.9))
    rejected = [row for row in history.rows if np.isinf(row.misfit)]
    assert rejected
    assert np.all(history.best["rates"] <= 0.75)
    assert min(row.misfit for row in history.rows) < 0.2 * history.rows[0].misfit
    assert all(np.all(np.isfinite(model["rates"])) for _, model in history.models)


def test_a_misfit_that_is_not_finite_is_refused():
    problem = Broken(misfit=lambda p, item: np.sum(np.real(p["b"])) * np.inf)
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match="evaluation 1"):
        invert(problem, Inversion((Stage(3),)))


class Single(Decay):
    """Rates in single precision, the best of which lie beyond the bounds of the tests."""

    def start(self):
        return {"rates": np.full(5, 0.5, np.float32)}

    def at_stage(self):
        return self


@pytest.mark.parametrize("problem", [Decay(), Single()], ids=["double", "single"])
@pytest.mark.parametrize("transform", ["none", "log", "slowness", "logistic"])
@pytest.mark.parametrize("first_step", [0.02, 20.0])
def test_a_stage_starts_from_a_model_on_the_bounds(problem, transform, first_step):
    """Which after rounding, to single precision above all, may lie a little outside of them."""
    settings = {"rates": Unknown(transform=transform, bounds=(0.3, 0.6))}
    stages = (Stage(15), Stage(15), Stage(15))
    history = invert(problem, Inversion(stages, settings, first_step=first_step))
    assert [row.stage for row in history.rows] == sorted(row.stage for row in history.rows)
    assert {row.stage for row in history.rows} == {0, 1, 2}
    assert np.all(np.abs(history.best["rates"] - 0.45) <= 0.15 + 1e-6)


def test_masked_values_may_lie_beyond_the_bounds_in_every_stage(decay):
    start = np.array([0.5, 5.0, 0.5, 0.01, 0.5])
    problem = Decay()
    problem.start = lambda: {"rates": start}
    setting = Unknown(bounds=(0.35, 0.7), mask=np.array([True, False, True, False, True]))
    history = invert(problem, Inversion((Stage(9), Stage(9)), {"rates": setting}))
    assert np.array_equal(history.best["rates"][[1, 3]], [5.0, 0.01])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": ()}, "one Stage or more"),
        ({"method": "Gauss-Newton"}, "there are L-BFGS-B"),
        ({"preconditioner": "ilumination"}, "there are none, illumination"),
        ({"first_step": 0.0}, "first_step = 0.0"),
        ({"history": 0}, "history = 0"),
        ({"inner_iterations": 0}, "inner_iterations = 0"),
        ({"tolerance": -1.0}, "tolerance = -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ModelError, match=message):
        Inversion(**{"stages": (Stage(1),)} | settings)


def test_a_stage_needs_an_evaluation():
    """A negative number would never have been spent."""
    with pytest.raises(ModelError, match="a stage of -1 evaluations"):
        Stage(-1)


def test_a_history_of_another_problem_is_refused(decay):
    with pytest.raises(ModelError, match="another problem"):
        invert(Plain(), Inversion((Stage(1),)), history=History(Described(decay)))


def test_lists_will_do():
    problem = Broken(
        start=lambda: {"a": [1.0 + 0j, 2.0], "b": 3.0},
        masks={"a": [True, False]},
        scales={"a": [1.0, 2.0]},
    )
    history = invert(problem, Inversion((Stage(9),), {"a": Unknown(mask=[True, True])}))
    np.testing.assert_allclose(history.best["a"], [1j, 2.0], atol=1e-5)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_gauss_newton_spends_its_last_evaluation_on_a_step(decay, n):
    """Of the last direction, products alone are lost if no evaluation is left."""
    history = invert(decay, Inversion((Stage(n),), method="Gauss-Newton-CG"))
    last = history.rows[-1].misfit
    if n == 2:  # no product, no direction: the steepest descent has no length
        assert len(history.rows) == 1
    else:
        assert last < 0.8 * history.rows[0].misfit
        assert history.reason == "all evaluations are spent"


def test_illumination_is_relative_to_what_is_sought():
    """Not to the source, which shines far brighter where nothing is sought."""
    settings = {"a": Unknown(scale=2.0, mask=np.array([False, True, True]))}
    found = amplified(settings, {"a": np.array([1e9, 4.0, 1.0])})["a"].scale
    np.testing.assert_allclose(found[1:], 2.0 / np.sqrt([1.01, 0.26]))
