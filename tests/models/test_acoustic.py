"""Acoustic waves against exact solutions, and what may go wrong in using them."""

import numpy as np
import pytest
from analytic import point_source, relative_error, run_plain

import backsweep as bs
from backsweep.errors import ModelError
from backsweep.models import Acoustic, ricker
from backsweep.models.stencils import (
    LEAST_POINTS,
    SECOND_DERIVATIVE,
    largest_eigenvalue,
    second_derivative,
)
from backsweep.testing import check_grads, taylor_test

C = 2000.0


def test_point_source_after_ten_wavelengths():
    """10 points per wavelength at the 1 % frequency, Courant number 0.1."""
    frequency = 10.0
    spacing = C / (2.76 * frequency) / 10
    dt = 0.1 * spacing / C
    n_steps = int(13 / frequency / dt)
    wavelet = ricker(frequency, dt, n_steps)
    model = Acoustic((300, 60), spacing, dt, n_steps)
    velocity = np.full(model.shape, C)
    assert 9.9 < model.points_per_wavelength(velocity, wavelet) < 10.1
    source = np.array([10.0, 30.0]) * spacing
    receiver = source + [10 * C / frequency, 0.0]
    # The same compiled step: a source and a receiver on the grid, at other places.
    near = source + [23 * spacing, 5 * spacing]
    pressure = model.simulate(velocity, source, [receiver, near], wavelet)
    for k, point in enumerate((receiver, near)):
        exact = point_source(wavelet, dt, np.hypot(*(point - source)), C)
        assert relative_error(pressure[:, k], exact) < 1e-2


@pytest.mark.parametrize("order", SECOND_DERIVATIVE)
def test_order_in_space(order):
    errors = []
    for n in (24, 48):
        width = order // 2
        x = 2 * np.pi * np.arange(-width, n + width) / n
        error = second_derivative(np.sin(x)[:, None], 0, order)[:, 0] * (n / 2 / np.pi) ** 2
        errors.append(np.abs(error + np.sin(x[width:-width])).max())
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1


@pytest.mark.parametrize("order", SECOND_DERIVATIVE)
def test_least_points_and_largest_eigenvalue(order):
    def symbol(angle):
        first, *others = SECOND_DERIVATIVE[order]
        return -first - 2 * sum(c * np.cos(k * angle) for k, c in enumerate(others, 1))

    angle = 2 * np.pi / LEAST_POINTS[order]
    assert 0.02 < 1 - np.sqrt(symbol(angle)) / angle < 0.026
    assert np.isclose(largest_eigenvalue(order), symbol(np.pi))


def refined(order, factor_space, factor_time, frequency=5.0):
    """Trace and exact solution at a fixed place, with the grid refined."""
    spacing, dt = 20.0 / factor_space, 1e-3 / factor_time
    n_steps = 500 * factor_time
    model = Acoustic(
        (40 * factor_space + 1, 40 * factor_space + 1), spacing, dt, n_steps, order=order
    )
    wavelet = ricker(frequency, dt, n_steps, delay=0.24)
    source, receiver = np.array([[200.0, 400.0], [600.0, 400.0]])
    trace = run_plain(model, np.full(model.shape, C), source, [receiver], wavelet)[:, 0]
    return trace, point_source(wavelet, dt, 400.0, C)


@pytest.mark.parametrize("order", [2, 4])
def test_order_of_the_whole_scheme_in_space(order):
    errors = [relative_error(*refined(order, n, 4)) for n in (1, 2)]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.4, errors


def test_order_in_time():
    traces = [refined(8, 1, n)[0][::n] for n in (1, 2, 4)]
    coarse, fine = (np.linalg.norm(traces[k] - traces[k + 1]) for k in (0, 1))
    assert abs(np.log2(coarse / fine) - 2) < 0.1


@pytest.mark.parametrize("velocity", [1500.0, C, 4500.0])
def test_reflection_of_the_frame(velocity):
    """At the edge, of a wave at normal incidence: the difference to a grid without that edge."""
    n, more, spacing, frequency = 41, 80, 10.0, velocity / 200
    dt = 0.3 * spacing / velocity
    n_steps = 400
    wavelet = ricker(frequency, dt, n_steps)
    traces = []
    for size, shift in ((n, 0.0), (n + 2 * more, more * spacing)):
        model = Acoustic((size, size), spacing, dt, n_steps, frequency=frequency)
        points = np.array([[200.0, 200.0], [400.0, 200.0], [200.0, 0.0]]) + shift
        c = np.full(model.shape, velocity)
        traces.append(run_plain(model, c, points[0], points[1:], wavelet))
    reflected = np.abs(traces[0] - traces[1]).max(axis=0) / np.abs(traces[1]).max(axis=0)
    assert reflected.max() < 1e-3


def small_problem(free_surface, dtype=np.float64, n_steps=150):
    """Off the grid, near the surface, in a model that varies; order 4 compiles faster than 8."""
    model = Acoustic((24, 20), 10.0, 1.5e-3, n_steps, 4, 6, free_surface)
    rng = np.random.default_rng(0)
    velocity = (C + 200 * rng.standard_normal(model.shape)).astype(dtype)
    receivers = [[103.0, 18.0], [171.5, 151.2], [40.0, 100.0]]
    return model, velocity, (57.0, 23.0), receivers, ricker(15.0, 1.5e-3, n_steps)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.25, 0.1), (0.0, 0.7)])
def test_points_between_grid_points(place):
    spacing, dt, n_steps = 10.0, 5e-4, 900
    model = Acoustic((71, 41), spacing, dt, n_steps, frequency=12.0)
    wavelet = ricker(12.0, dt, n_steps)
    source, receiver = np.array([100.0, 200.0]), np.array([600.0, 200.0])
    c = np.full(model.shape, C)
    exact = point_source(wavelet, dt, 500.0, C)
    shift = np.array(place) * spacing
    # Shifted together, and the receiver alone in the other direction.
    both = run_plain(model, c, source + shift, [receiver + shift], wavelet)[:, 0]
    assert relative_error(both, exact) < 1e-2
    alone = run_plain(model, c, source, [receiver - shift], wavelet)[:, 0]
    distance = np.hypot(*(receiver - shift - source))
    assert relative_error(alone, point_source(wavelet, dt, distance, C)) < 1e-2


@pytest.mark.parametrize("depth", [100.0, 23.0])
def test_free_surface_has_an_image_source(depth):
    spacing, dt, n_steps = 10.0, 5e-4, 900
    model = Acoustic((71, 41), spacing, dt, n_steps, free_surface=True, frequency=12.0)
    wavelet = ricker(12.0, dt, n_steps)
    source, receiver = np.array([100.0, depth]), np.array([550.0, 87.0])
    pressure = run_plain(model, np.full(model.shape, C), source, [receiver], wavelet)[:, 0]
    direct, image = (
        point_source(wavelet, dt, np.hypot(*(receiver - [source[0], z])), C)
        for z in (depth, -depth)
    )
    assert relative_error(pressure, direct - image) < 1e-2


@pytest.mark.parametrize("order", SECOND_DERIVATIVE)
def test_free_surface_is_an_antisymmetric_field(order):
    """Half of a doubled model with two opposite sources, with every bit but rounding."""
    model = Acoustic((20, 15), 10.0, 1e-3, 120, order, n_absorb=5, free_surface=True)
    whole = Acoustic((20, 29), 10.0, 1e-3, 120, order, n_absorb=5)
    c = C + 300 * np.random.default_rng(1).random(model.shape)
    wavelet = ricker(20.0, 1e-3, 120)
    receiver = np.array([103.0, 61.0])
    half = run_plain(model, c, [52.0, 27.0], [receiver], wavelet)
    doubled = np.concatenate([c[:, :0:-1], c], axis=1)
    sources = [[52.0, 140 + 27.0], [52.0, 140 - 27.0]]
    both = run_plain(
        whole, doubled, sources, [receiver + [0, 140]], np.stack([wavelet, -wavelet], 1)
    )
    assert relative_error(half, both) < 1e-11


def test_native_equals_plain_numpy_and_gradients_are_native():
    model, velocity, source, receivers, wavelet = small_problem(True)
    pressure = model.simulate(velocity, source, receivers, wavelet)
    assert pressure.dtype == velocity.dtype and pressure.shape == (150, 3)
    plain = run_plain(model, velocity, source, receivers, wavelet)
    assert relative_error(pressure, plain) < 1e-12
    assert np.all(pressure[0] == 0) and np.all(np.any(pressure != 0, axis=0))

    def loss(c):
        return 0.5 * np.sum(model.simulate(c, source, receivers, wavelet) ** 2)

    _, gradient, report = bs.value_and_grad(loss, has_report=True)(velocity)
    assert report.scans[0].executor == "native"
    assert gradient.shape == velocity.shape
    # Another source, other receivers, another dt: nothing is compiled.
    other = Acoustic(**{**vars(model), "dt": 1.2e-3})
    _, _, report = bs.value_and_grad(
        lambda c: 0.5 * np.sum(other.simulate(c, (81.3, 52.2), receivers[::-1], wavelet) ** 2),
        has_report=True,
    )(velocity)
    assert report.n_compilations == 0


def test_gradients_with_a_free_surface_and_points_off_the_grid():
    model, velocity, source, receivers, wavelet = small_problem(True)

    # Differences are taken of the size of the argument: of the deviation, not of the velocity.
    def record(deviation, s):
        return model.simulate(C + deviation, source, receivers, s)

    check_grads(record, (velocity - C, wavelet))
    observed = record(0.5 * (velocity - C), wavelet)
    rates = taylor_test(lambda d: 0.5 * np.sum((record(d, wavelet) - observed) ** 2), velocity - C)
    assert rates[-1] > 1.9


def test_float32():
    model, velocity, *others = small_problem(True, np.float32)
    pressure = model.simulate(velocity, *others)
    assert pressure.dtype == np.float32
    exact = run_plain(model, velocity.astype(np.float64), *others)
    assert relative_error(pressure, exact) < 1e-5


@pytest.mark.parametrize("free_surface", [False, True])
def test_source_and_receiver_may_be_swapped(free_surface):
    """To rounding, through the frame as well, where both lie on the grid in equal velocities."""
    model, velocity, _, _, wavelet = small_problem(free_surface, n_steps=400)
    a, b = np.array([[30.0, 20.0], [170.0, 150.0]])
    velocity[3, 2] = velocity[17, 15] = C
    there = run_plain(model, velocity, a, [b], wavelet)
    back = run_plain(model, velocity, b, [a], wavelet)
    assert relative_error(there, back) < 1e-10


def test_stable_at_the_largest_step_only():
    model, _, source, receivers, _ = small_problem(False)
    velocity, peaks = np.full(model.shape, C), []
    for factor in (0.999, 1.02):
        dt = factor * model.max_dt(velocity)
        changed = Acoustic(**{**vars(model), "dt": dt, "n_steps": 2000})
        with np.errstate(all="ignore"):
            pressure = run_plain(changed, velocity, source, receivers, ricker(15.0, dt, 2000))
        peaks.append(np.abs(pressure[-200:]).max())
    assert peaks[0] < 1e-2 and not peaks[1] < 1e3


def test_illumination():
    model, velocity, source, receivers, wavelet = small_problem(False)
    found = model.illumination(velocity, source, wavelet)
    traces = run_plain(model, velocity, source, [[40.0, 100.0]], wavelet)[:, 0]
    assert found.shape == model.shape and np.all(found > 0)
    assert np.isclose(found[4, 10], np.sum(np.diff(traces, 2) ** 2), rtol=0.05)


def test_several_sources_add_up():
    model, velocity, source, receivers, wavelet = small_problem(True)
    positions = np.array([source, (60.0, 25.0)])
    wavelets = np.stack([wavelet, 2 * wavelet], 1)
    together = run_plain(model, velocity, positions, receivers, wavelets)
    apart = sum(
        run_plain(model, velocity, p, receivers, w)
        for p, w in zip(positions, wavelets.T, strict=True)
    )
    assert relative_error(together, apart) < 1e-12
    with pytest.raises(ModelError, match=r"shape \(150, 3\) for 2 sources"):
        model.check(velocity, positions, receivers, np.zeros((150, 3)))
