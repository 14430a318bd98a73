"""The Bloch model against closed forms, matrix exponentials and JEMRIS."""

from __future__ import annotations

from dataclasses import replace

import mr_data
import numpy as np
import pytest
import scipy.linalg
from marks import more

import backsweep as bs
from backsweep.errors import ModelError
from backsweep.models import bloch
from backsweep.models.bloch import GAMMA, Sequence, Spins, simulate
from backsweep.testing import CheckError, check_grads, taylor_test

N_SPINS, N_STEPS = 6, 8


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def make_spins(rng, **changes):
    values = {
        "position": rng.uniform(-0.1, 0.1, (N_SPINS, 3)),
        "m0": rng.uniform(0.5, 1.5, N_SPINS),
        "t1": rng.uniform(0.5, 1.5, N_SPINS),
        "t2": rng.uniform(0.02, 0.2, N_SPINS),
        "off_resonance": rng.uniform(-600, 600, N_SPINS),
    }
    return Spins(**{**values, **changes})


def make_sequence(rng, dtype=np.float64):
    rf = 8e-6 * (rng.standard_normal(N_STEPS) + 1j * rng.standard_normal(N_STEPS))
    return Sequence(
        rng.uniform(1e-4, 1e-3, N_STEPS),
        rf.astype(np.result_type(dtype, np.complex64)),
        rng.uniform(-2e-4, 2e-4, (N_STEPS, 3)).astype(dtype),
    )


def random_start(rng):
    m = rng.standard_normal((3, N_SPINS))
    return m[0] + 1j * m[1], m[2]


def generator(spins, sequence, k, n):
    """4 x 4 matrix of dM/dt for spin k in interval n, acting on (Mx, My, Mz, 1)."""
    wx, wy = GAMMA * sequence.rf[n].real, GAMMA * sequence.rf[n].imag
    wz = GAMMA * sequence.gradient[n] @ spins.position[k] + spins.off_resonance[k]
    r1, r2 = 1 / spins.t1[k], 1 / spins.t2[k]
    return np.array(
        [[-r2, wz, -wy, 0], [-wz, -r2, wx, 0], [wy, -wx, -r1, r1 * spins.m0[k]], [0, 0, 0, 0]]
    )


def by_exponentials(spins, sequence, start):
    final = np.empty((N_SPINS, 3))
    for k in range(N_SPINS):
        m = np.array([start[0][k].real, start[0][k].imag, start[1][k], 1])
        for n, duration in enumerate(sequence.durations):
            m = scipy.linalg.expm(duration * generator(spins, sequence, k, n)) @ m
        final[k] = m[:3]
    return final[:, 0] + 1j * final[:, 1], final[:, 2]


def test_free_precession_and_relaxation(rng):
    spins, start = make_spins(rng), random_start(rng)
    sequence = Sequence(rng.uniform(1e-3, 1e-2, 5), np.zeros(5, complex), np.zeros((5, 3)))
    (m, mz), _ = simulate(spins, sequence, initial=start)
    t = sequence.durations.sum()
    exact = start[0] * np.exp(-t / spins.t2 - 1j * spins.off_resonance * t)
    np.testing.assert_allclose(m, exact, rtol=1e-12)
    exact = spins.m0 + (start[1] - spins.m0) * np.exp(-t / spins.t1)
    np.testing.assert_allclose(mz, exact, rtol=1e-12)


@pytest.mark.parametrize("phase", [0.0, 1.1])
def test_quarter_turn(phase):
    """RF along x turns M from z to y; a phase turns both."""
    rf = np.full(4, np.pi / 2 / (GAMMA * 1e-3) * np.exp(1j * phase))
    sequence = Sequence(np.full(4, 0.25e-3), rf, np.zeros((4, 3)))
    (m, mz), _ = simulate(Spins(np.zeros((2, 3))), sequence)
    np.testing.assert_allclose(m, 1j * np.exp(1j * phase), atol=1e-12)
    np.testing.assert_allclose(mz, 0, atol=1e-12)


def test_rotation_equals_matrix_exponential(rng):
    spins = make_spins(rng, t1=np.full(N_SPINS, np.inf), t2=np.full(N_SPINS, np.inf))
    sequence, start = make_sequence(rng), random_start(rng)
    (m, mz), _ = simulate(spins, sequence, initial=start)
    exact = by_exponentials(spins, sequence, start)
    np.testing.assert_allclose(m, exact[0], atol=1e-12)
    np.testing.assert_allclose(mz, exact[1], atol=1e-12)
    length = np.hypot(np.abs(start[0]), start[1])
    np.testing.assert_allclose(np.hypot(np.abs(m), mz), length, rtol=1e-13)


def test_relaxation_splitting_is_of_second_order(rng):
    spins, sequence, start = make_spins(rng), make_sequence(rng), random_start(rng)
    exact = by_exponentials(spins, sequence, start)[0]
    errors = []
    for parts in (4, 8, 16):
        finer = Sequence(
            np.repeat(sequence.durations / parts, parts),
            np.repeat(sequence.rf, parts),
            np.repeat(sequence.gradient, parts, axis=0),
        )
        errors.append(np.abs(simulate(spins, finer, initial=start)[0][0] - exact).max())
    assert errors[0] < 1e-3
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4, rtol=0.05)


def test_single_precision(rng):
    sequence = make_sequence(rng, np.float32)
    spins = make_spins(rng)
    (m, mz), signal = simulate(spins, sequence)
    single = replace(spins, position=spins.position.astype(np.float32))
    (m32, mz32), signal32 = simulate(single, sequence)
    assert (m32.dtype, mz32.dtype, signal32.dtype) == (np.complex64, np.float32, np.complex64)
    assert m.dtype == np.complex128
    np.testing.assert_allclose(m32, m, atol=5e-6)
    np.testing.assert_allclose(mz32, mz, atol=5e-6)
    np.testing.assert_allclose(signal32, signal, atol=3e-5)


def test_signal_is_encoded_and_demodulated(rng):
    """Samples of a readout: sum of m0 exp(-i gamma G.r t), receiver phase taken off."""
    position = rng.uniform(-0.01, 0.01, (N_SPINS, 3))
    m0 = rng.uniform(0.5, 1.5, N_SPINS)
    gradient = np.tile([1e-3, -2e-3, 3e-3], (5, 1))
    sequence = Sequence(np.full(5, 1e-4), np.zeros(5), gradient, np.array([1, 4]), [0.3, 0.7])
    start = (m0.astype(complex), np.zeros(N_SPINS))
    _, signal = simulate(Spins(position, m0), sequence, initial=start)
    t = np.array([2e-4, 5e-4])
    phase = GAMMA * t[:, None] * (position @ gradient[0]) + np.array([[0.3], [0.7]])
    np.testing.assert_allclose(signal, (m0 * np.exp(-1j * phase)).sum(axis=1), rtol=1e-12)


def loss(values, position, durations, zero_rf=False):
    """Of everything that can be differentiated, in units that make all of it about one."""
    rf = 1e-5 * (values["rf"] * 0 if zero_rf else values["rf"])
    spins = Spins(
        position, values["m0"], values["t1"], 0.1 * values["t2"], 500 * values["off_resonance"]
    )
    sequence = Sequence(durations, rf, 1e-4 * values["gradient"], [2, N_STEPS - 1], 0.4)
    (m, mz), signal = simulate(spins, sequence)
    return np.sum(np.abs(m - 0.3j) ** 2 + (mz - 0.2) ** 2) + np.sum(np.abs(signal - 1j) ** 2)


@pytest.fixture
def problem(rng):
    values = {
        "rf": rng.standard_normal(N_STEPS) + 1j * rng.standard_normal(N_STEPS),
        "gradient": rng.standard_normal((N_STEPS, 3)),
        "m0": rng.uniform(0.5, 1.5, N_SPINS),
        "t1": rng.uniform(0.5, 1.5, N_SPINS),
        "t2": rng.uniform(0.5, 1.0, N_SPINS),
        "off_resonance": rng.uniform(-1, 1, N_SPINS),
    }
    position = rng.uniform(-0.1, 0.1, (N_SPINS, 3))
    durations = rng.uniform(1e-4, 1e-3, N_STEPS)
    return values, lambda v: loss(v, position, durations)


@pytest.mark.compiles
def test_derivatives(problem):
    values, function = problem
    check_grads(function, (values,))
    rates = taylor_test(function, values)
    assert len(rates) >= 2
    gradient = bs.grad(function)(values)
    assert all(np.abs(g).min() > 0 for g in gradient.values())


def test_a_wrong_gradient_is_noticed(problem):
    values, function = problem
    with pytest.raises(CheckError):
        taylor_test(lambda v: function({**v, "rf": bs.stop_gradient(v["rf"])}), values)


@pytest.mark.parametrize("dtype", [more(np.float64), np.float32])
def test_derivative_at_zero_field(dtype):
    """dMxy/dB1 = i gamma dt M0 there, the field along z has no effect on M along z."""
    durations = np.full(3, 1e-4)
    position = np.zeros((1, 3), dtype)

    def my(rf, gradient):
        (m, _), _ = simulate(Spins(position), Sequence(durations, rf, gradient))
        return np.sum(m.imag)

    rf, gradient = np.zeros(3, np.result_type(dtype, np.complex64)), np.zeros((3, 3), dtype)
    rf_bar, gradient_bar = bs.grad(my, (0, 1))(rf, gradient)
    np.testing.assert_allclose(rf_bar, GAMMA * 1e-4, rtol=1e-6)
    assert np.all(gradient_bar == 0)
    if dtype == np.float64:
        product = bs.hvp(my, (rf, gradient), (rf + 1, gradient))[1]
        assert all(np.all(np.isfinite(p)) for p in product)


def test_compiled(problem):
    values, function = problem
    _, _, report = bs.value_and_grad(function, has_report=True)(values)
    assert report.scans[0].executor == "native"


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("spins", {"t1": -1.0}, "spins.t1 is -1 s at least once"),
        ("spins", {"t2": 0.0}, "spins.t2 is 0 s"),
        ("spins", {"t1": 800.0}, "spins.t1 reaches 800 s: looks like ms"),
        ("spins", {"t1": 0.1, "t2": 0.3}, "exceeds twice spins.t1"),
        ("spins", {"m0": np.ones(4)}, r"spins.m0 has the shape \(4,\): give \(6\) or \(\)"),
        ("spins", {"m0": np.nan}, "spins.m0 holds nan"),
        ("spins", {"t1": "long"}, "spins.t1 is of the type str: give real numbers"),
        ("spins", {"t2": None}, "spins.t2 is of the type NoneType"),
        ("sequence", {"gradient": np.zeros((8, 3), complex)}, "type complex128: give real"),
        ("spins", {"position": np.zeros(3)}, r"give \(n, 3\)"),
        ("spins", {"position": np.full((6, 3), 50.0)}, "looks like mm"),
        ("sequence", {"rf": np.full(8, 10.0)}, "sequence.rf reaches 10 T: looks like uT"),
        ("sequence", {"gradient": np.full((8, 3), 20.0)}, "looks like mT/m"),
        ("sequence", {"gradient": np.zeros((8, 2))}, r"\(8, 2\): give \(8, 3\)"),
        ("sequence", {"durations": np.zeros(8)}, "must be positive"),
        ("sequence", {"adc_steps": [0, 8]}, "reaches from 0 to 8"),
        ("sequence", {"adc_steps": [0.5]}, "give integers"),
        ("sequence", {"adc_steps": [1], "adc_phase": [0.0, 0.1]}, "adc_phase has the shape"),
    ],
)
def test_refused(rng, where, change, message):
    values = {"position": np.zeros((N_SPINS, 3))}
    waveforms = {"durations": np.full(8, 1e-4), "rf": np.zeros(8), "gradient": np.zeros((8, 3))}
    (values if where == "spins" else waveforms).update(change)
    with pytest.raises(ModelError, match=message):
        bloch.check(Spins(**values), Sequence(**waveforms))
    with pytest.raises(ModelError, match=message):
        simulate(Spins(**values), Sequence(**waveforms))


def test_start_of_another_shape_is_refused(rng):
    start = (np.zeros(3, complex), np.zeros(3))
    with pytest.raises(ModelError, match=r"initial\[0\] has the shape \(3,\): give \(6\)"):
        simulate(make_spins(rng), make_sequence(rng), initial=start)


def test_shapes_of_traced_arrays_are_checked():
    def value(rf):
        sequence = Sequence(np.full(8, 1e-4), rf, np.zeros((8, 3)))
        return np.sum(simulate(Spins(np.zeros((2, 3))), sequence)[0][1])

    with pytest.raises(ModelError, match=r"sequence.rf has the shape \(7,\)"):
        bs.grad(value)(np.zeros(7, complex))


@mr_data.needs_data
@pytest.mark.parametrize(("name", "limit"), [("trapezoid", 5e-4), ("gre", 5e-4), ("sli_sel", 5e-3)])
def test_jemris(name, limit):
    spins = mr_data.read_spins(mr_data.FOLDER / "jemris" / "sample.h5")
    sequence = mr_data.read_diagram(name)
    times, reference = mr_data.read_signal(name)
    sampled = np.cumsum(sequence.durations)[sequence.adc_steps]
    np.testing.assert_allclose(sampled, times, atol=1e-9)
    _, signal = simulate(spins, sequence)
    assert mr_data.nrmse(signal / len(spins.m0), reference) < limit
