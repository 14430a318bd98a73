"""Shallow water against invariants of its scheme, a balanced jet and waves in a channel."""

import numpy as np
import pytest

import backsweep as bs
from backsweep.errors import ModelError
from backsweep.models import ShallowWater
from backsweep.models.shallow_water import equations, stepping, weights
from backsweep.testing import taylor_test

SHAPE = (10, 12)
MODEL = ShallowWater(SHAPE, 5e3, 15.0, 30, coriolis=2e-4, beta=2e-11, viscosity=500.0)


def run_plain(model, height, u=0.0, v=0.0, bottom=0.0):
    """`simulate` in plain NumPy: nothing is traced or compiled."""
    carry, advance = stepping(model, height, u, v, bottom)
    for x in zip(*weights(model, height.dtype), strict=True):
        carry = advance(carry, x)
    return carry[0]


def rough(shape=SHAPE, seed=0):
    """Heights, velocities and a bottom that differ from cell to cell."""
    rng = np.random.default_rng(seed)
    h, u, v, bottom = rng.standard_normal((4, *shape))
    v[-1] = 0
    return 100 + h, 0.2 * u, 0.2 * v, 5 * bottom


def energy(model, h, u, v, bottom):
    """Kinetic energy of both velocities in their faces, and potential energy."""
    east = 0.5 * (h + np.roll(h, -1, 1))
    north = 0.5 * (h[:-1] + h[1:])
    potential = model.gravity * h * (0.5 * h + bottom)
    return np.sum(0.5 * east * u**2 + potential) + np.sum(0.5 * north * v[:-1] ** 2)


def test_the_scheme_conserves_volume_and_energy():
    h, u, v, bottom = rough()
    model = ShallowWater(SHAPE, 5e3, 15.0, 1, coriolis=2e-4, beta=2e-11)
    h_dot, u_dot, v_dot = equations(model, bottom, h.dtype)(h, u, v)
    assert abs(h_dot.sum()) < 1e-14 * np.abs(h_dot).sum()
    assert not v_dot[-1].any()

    def slope(t):
        """Central: of a polynomial of degree 3 there is an error, of order t^2."""
        ahead, behind = (
            energy(model, h + s * h_dot, u + s * u_dot, v + s * v_dot, bottom) for s in (t, -t)
        )
        return (ahead - behind) / (2 * t)

    # Exact derivative by extrapolation: energy is of degree 3 in the state.
    found = (4 * slope(1.0) - slope(2.0)) / 3
    turnover = model.gravity * np.sum(h * np.abs(h_dot))
    assert abs(found) < 1e-10 * turnover


def test_friction_takes_energy_and_moves_no_water():
    h, u, v, bottom = rough()
    without = equations(ShallowWater(SHAPE, 5e3, 15.0, 1), bottom, h.dtype)(h, u, v)
    with_it = equations(ShallowWater(SHAPE, 5e3, 15.0, 1, viscosity=500.0), bottom, h.dtype)
    h_dot, u_dot, v_dot = (a - b for a, b in zip(with_it(h, u, v), without, strict=True))
    assert not h_dot.any() and not v_dot[-1].any()
    assert np.isclose(u_dot.sum(), 0, atol=1e-15)  # walls do not hold back
    assert np.sum(u * u_dot) < 0 and np.sum(v * v_dot) < 0
    per_area = 500.0 / 5e3**2
    assert np.isclose(v_dot[0, 3], per_area * (v[0, 2] + v[0, 4] + v[1, 3] - 4 * v[0, 3]))
    assert np.isclose(
        v_dot[4, 3], per_area * (v[4, [2, 4]].sum() + v[[3, 5], 3].sum() - 4 * v[4, 3])
    )
    assert np.isclose(u_dot[0, 3], per_area * (u[0, 2] + u[0, 4] + u[1, 3] - 3 * u[0, 3]))


def balanced_jet(model):
    """A flow along x whose height is in the scheme's own balance, row by row."""
    n_y, n_x = model.shape
    y = (np.arange(n_y) + 0.5) / n_y
    u = 2 * np.sin(np.pi * y) ** 2
    f = model.coriolis + model.beta * model.spacing * np.arange(1, n_y)
    h = [100.0]
    for j in range(n_y - 1):
        spin = (f[j] - (u[j + 1] - u[j]) / model.spacing) * model.spacing
        north = h[j]
        for _ in range(60):
            flow = (h[j] * u[j] + north * u[j + 1]) / (h[j] + north)
            north = h[j] - (spin * flow + 0.5 * (u[j + 1] ** 2 - u[j] ** 2)) / model.gravity
        h.append(north)
    return np.repeat(np.array(h)[:, None], n_x, 1), np.repeat(u[:, None], n_x, 1)


def test_a_balanced_jet_stays():
    model = ShallowWater((24, 16), 2e4, 40.0, 400, coriolis=1e-4, beta=1e-11)
    h, u = balanced_jet(model)
    model.check(h, u)
    assert np.ptp(h) > 5
    last = run_plain(model, h, u)
    for found, expected in zip(last, (h, u, np.zeros_like(h)), strict=True):
        assert np.abs(found - expected).max() < 1e-9
    # Without the turning of the Earth it does not.
    still = ShallowWater(model.shape, 2e4, 40.0, 400, coriolis=0.0)
    assert np.abs(run_plain(still, h, u)[2]).max() > 0.05


def poincare_wave(model, depth, amplitude, t):
    """Height, u, v of an inertia-gravity wave between the walls; a linear solution."""
    n_y, n_x = model.shape
    f, gravity, spacing = model.coriolis, model.gravity, model.spacing
    k, m = 2 * np.pi / (n_x * spacing), np.pi / (n_y * spacing)
    omega = np.sqrt(f**2 + gravity * depth * (k**2 + m**2))
    y_h, y_v = (np.arange(n_y) + 0.5) * spacing, np.arange(1, n_y + 1) * spacing
    x_h, x_u = (np.arange(n_x) + 0.5) * spacing, np.arange(1, n_x + 1) * spacing

    def u_and_h(x):
        """Of v = amplitude sin(m y) exp(i (k x - omega t)): the real parts."""
        v, v_y = np.sin(m * y_h), m * np.cos(m * y_h)
        u = 1j * (f * omega * v - gravity * depth * k * v_y) / (omega**2 - gravity * depth * k**2)
        h = depth * (k * u - 1j * v_y) / omega
        wave = amplitude * np.exp(1j * (k * x - omega * t))
        return (np.outer(u, wave)).real, (np.outer(h, wave)).real

    v = amplitude * np.outer(np.sin(m * y_v), np.cos(k * x_h - omega * t))
    v[-1] = 0
    return depth + u_and_h(x_h)[1], u_and_h(x_u)[0], v


def error_of_wave(n, epsilon):
    spacing = 1e6 / n
    model = ShallowWater((n, 2 * n), spacing, 0.1 * spacing / 31, 5 * n, epsilon=epsilon)
    first = poincare_wave(model, 100.0, 1e-5, 0.0)
    exact = poincare_wave(model, 100.0, 1e-5, model.n_steps * model.dt)
    found = run_plain(model, *first)
    assert np.abs(exact[1] - first[1]).max() > 1e-5  # it has moved by a good part of its length
    return max(np.abs(a - b).max() / np.ptp(b) for a, b in zip(found, exact, strict=True))


def test_second_order_against_an_inertia_gravity_wave():
    errors = [error_of_wave(n, 0.0) for n in (16, 32)]
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1, errors
    assert errors[1] < 2e-3
    # The shift makes it order 1 in time, with a small constant.
    shifted = [error_of_wave(n, 0.1) for n in (32, 64)]
    assert 1.0 < np.log2(shifted[0] / shifted[1]) < 1.5
    assert shifted[0] < 4e-3


def test_the_largest_dt_is_stable_and_not_far_from_unstable():
    growth = []
    for factor in (1.0, 1.5):
        model = ShallowWater((12, 16), 5e3, 1.0, 600, coriolis=2e-4)
        rng = np.random.default_rng(0)
        h = 100 + 1e-3 * rng.standard_normal(model.shape)
        model = ShallowWater(
            model.shape, 5e3, factor * model.max_dt(h), 600, coriolis=2e-4, viscosity=0.0
        )
        with np.errstate(all="ignore"):
            growth.append(np.ptp(run_plain(model, h)[0]) / np.ptp(h))
    assert growth[0] < 1
    assert not growth[1] < 100


def loss(fields, checkpointing=None):
    h, u, v = MODEL.simulate(*fields, checkpointing=checkpointing)
    return np.sum((h - 100) ** 2) + 50 * np.sum(u**2 * v) + 20 * np.sum(v**2)


def test_simulate_is_the_scheme_and_conserves_volume():
    fields = rough()
    MODEL.check(*fields)
    found = MODEL.simulate(*fields)
    for a, b in zip(found, run_plain(MODEL, *fields), strict=True):
        assert np.array_equal(a, b)
    volume = fields[0].sum()
    assert abs(found[0].sum() - volume) < 1e-14 * volume
    assert not found[2][-1].any()
    # Numbers for whole arrays, and what lies in the wall, which does not matter.
    h, _, v, _ = fields
    walled = v.copy()
    walled[-1] = 7.0
    for a, b in zip(
        run_plain(MODEL, h, 0.3, v, 2.0),
        run_plain(MODEL, h, np.full(SHAPE, 0.3), walled, np.full(SHAPE, 2.0)),
        strict=True,
    ):
        assert np.array_equal(a, b)
    single = tuple(a.astype(np.float32) for a in fields)
    assert {a.dtype for a in run_plain(MODEL, *single)} == {np.dtype(np.float32)}


@pytest.mark.compiles
def test_derivatives_of_all_fields():
    assert taylor_test(loss, rough(), order=2)[-1] > 1.9


@pytest.mark.compiles
@pytest.mark.slow_all
def test_second_derivatives_of_all_fields():
    assert taylor_test(loss, rough(), order=3, step=0.1)[-1] > 2.9


@pytest.mark.compiles
@pytest.mark.slow_all
def test_the_same_bits_for_every_schedule():
    fields = rough()
    gradients = [
        bs.value_and_grad(lambda x, c=c: loss(x, c))(fields)
        for c in (
            bs.Checkpointing(schedule="store_all"),
            bs.Checkpointing(snapshots=3),
            bs.Checkpointing(snapshots=7),
            bs.Checkpointing(schedule="online", snapshots=5),
        )
    ]
    for value, gradient in gradients[1:]:
        assert value == gradients[0][0]
        for a, b in zip(gradient, gradients[0][1], strict=True):
            assert np.array_equal(a, b)
    assert not gradients[0][1][2][-1].any()


def test_wrong_use():
    h, u, v, bottom = rough()
    with pytest.raises(ModelError, match=r"height has shape \(3, 12\), the model \(10, 12\)"):
        MODEL.simulate(h[:3])
    with pytest.raises(ModelError, match=r"v has shape \(9, 12\)"):
        MODEL.simulate(h, u, v[:-1])
    with pytest.raises(ModelError, match=r"height is -1 m at point \(0, 0\)"):
        MODEL.check(np.full(SHAPE, -1.0))
    with pytest.raises(ModelError, match=r"bottom is nan at point \(\)"):
        MODEL.check(h, u, v, np.nan)
    with pytest.raises(ModelError, match="stable time step .* set by the largest height"):
        MODEL.check(100 * h)
    with pytest.raises(ModelError, match="epsilon is 0: "):
        ShallowWater(SHAPE, 5e3, 15.0, 30, epsilon=0.0).check(h)
    for viscosity in (-1.0, np.nan):
        with pytest.raises(ModelError, match=f"viscosity is {viscosity:g} m"):
            ShallowWater(SHAPE, 5e3, 15.0, 30, viscosity=viscosity).check(h)
