"""The benchmarks' problems at a tiny size: backsweep against hand-written code and plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.storage import Layout
from backsweep.storage.hdf5 import HDF5Store
from benchmarks.baselines import hdf5_bare
from benchmarks.baselines.acoustic_numba import AcousticNumba
from benchmarks.baselines.marmousi2_numba import MarmousiNumba
from benchmarks.common import difference
from benchmarks.heat import TOLERANCE, exact_gradient
from benchmarks.problems import Acoustic, Bloch, Heat, PairForces, ShallowWater, State
from benchmarks.programs import (
    make_acoustic,
    make_bloch,
    make_heat,
    make_pair_forces,
    make_shallow_water,
    run_shallow_water_in_numpy,
)

TINY_ACOUSTIC = Acoustic(
    n_z=40,
    n_x=48,
    n_steps=70,
    n_receivers=9,
    frequency=25.0,
    sponge_width=6,
    source=(9, 20),
    receiver_depth=6,
)


def _slope(f: Callable[..., float], at: Sequence[Any], along: Sequence[Any], h: float) -> float:
    """Central difference of fourth order."""

    def value(shift: float) -> float:
        return f(*(a + shift * d for a, d in zip(at, along, strict=True)))

    return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)


def _dot(a: Sequence[Any], b: Sequence[Any]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


@pytest.mark.compiles
def test_acoustic_is_the_hand_written_one() -> None:
    """With float64 sums here and float32 ones there: as the benchmark's tolerance has it."""
    problem = TINY_ACOUSTIC
    request = bs.Checkpointing(schedule="store_all")
    simulate, misfit = make_acoustic(problem, request)
    value, gradient = bs.value_and_grad(misfit)(problem.c2, problem.observed)
    by_hand = AcousticNumba(problem)
    assert value > 0
    assert difference((value, gradient), by_hand.value_and_grad(problem.c2)) < 1e-4
    traces = simulate(problem.c2)
    assert difference(traces, problem.simulate(problem.c2)) < 1e-5
    assert difference(by_hand.traces, traces) < 1e-5


def test_marmousi_by_hand_folds_what_it_padded() -> None:
    """<pad(v), p> = <v, fold(p)>, with the frame repeating the edge."""
    rng, frame = np.random.default_rng(0), 3
    v, padded = rng.standard_normal((5, 7)), rng.standard_normal((11, 13))
    folded = MarmousiNumba._fold(SimpleNamespace(frame=frame), padded)  # type: ignore[arg-type]
    assert np.vdot(np.pad(v, frame, mode="edge"), padded) == pytest.approx(np.vdot(v, folded))


@pytest.mark.compiles
def test_bloch() -> None:
    problem = Bloch(n_spins=40, n_steps=12)

    def by_numpy(*waveforms: Any) -> float:
        carry = problem.initial()
        for x in zip(*waveforms, strict=True):
            carry = problem.step(np, carry, x, problem.spins)
        return problem.loss(np, carry)

    waveforms = problem.waveforms
    value, gradient = bs.value_and_grad(make_bloch(problem), tuple(range(5)))(*waveforms)
    assert value == pytest.approx(by_numpy(*waveforms), rel=1e-12)
    along = [np.cos(np.arange(12) + k) * np.abs(w).max() for k, w in enumerate(waveforms)]
    slope = _slope(by_numpy, waveforms, along, 1e-3)
    assert _dot(gradient, along) == pytest.approx(slope, rel=1e-8)


@pytest.mark.compiles
def test_pair_forces() -> None:
    problem = PairForces(n_particles=12, n_steps=6, softening=0.05)

    def by_numpy(step: Any, *carry: Any) -> float:
        for _ in range(problem.n_steps):
            carry = step(carry)
        return float(np.sum(carry[0] ** 2))

    x, v = problem.initial()
    value, gradient = bs.value_and_grad(make_pair_forces(problem), (0, 1))(x, v)
    assert value == pytest.approx(by_numpy(problem.step, x, v), rel=1e-12)
    assert value == pytest.approx(by_numpy(lambda c: problem.step_sqrt(np, c), x, v), rel=1e-12)
    along = np.cos(np.arange(12.0)), np.sin(np.arange(12.0))
    slope = _slope(lambda *carry: by_numpy(problem.step, *carry), (x, v), along, 1e-3)
    assert _dot(gradient, along) == pytest.approx(slope, rel=1e-8)


@pytest.mark.compiles
def test_heat() -> None:
    problem = Heat(n_points=50, n_steps=300)
    final, loss = make_heat(problem, bs.Checkpointing(snapshots=10))
    gradient = bs.grad(loss)(problem.initial())
    assert difference(gradient[1:-1], exact_gradient(problem)) < TOLERANCE
    u = problem.initial()
    for _ in range(problem.n_steps):
        u = problem.step(u)
    np.testing.assert_allclose(final(problem.initial()), u, rtol=1e-12, atol=1e-14)


def test_hdf5_store_and_bare_h5py_bring_back_the_state(tmp_path: Path) -> None:
    arrays = State(shape=(8, 6)).arrays()
    values = tuple(arrays.values())
    targets = [{name: np.empty_like(a) for name, a in arrays.items()} for _ in range(2)]
    hdf5_bare.put(tmp_path / "0.h5", arrays)
    hdf5_bare.get(tmp_path / "0.h5", targets[0])
    layout = Layout(tuple(arrays), [a.shape for a in values], [a.dtype for a in values])
    with HDF5Store(str(tmp_path), layout) as store:
        store.put(0, values)
        store.get(0, tuple(targets[1].values()))
    for target in targets:
        assert difference(target, arrays) == 0


@pytest.mark.compiles
@pytest.mark.slow_all
def test_shallow_water() -> None:
    problem = ShallowWater(n_y=12, n_x=20, n_steps=6)
    last, misfit = make_shallow_water(problem)
    expected = run_shallow_water_in_numpy(problem)
    for found, by_numpy in zip(last(problem.height), expected, strict=True):
        assert found.dtype == np.float32
        assert np.array_equal(found, by_numpy)
    value, gradient = bs.value_and_grad(misfit)(problem.height)
    assert value == pytest.approx(0.5 * np.sum((expected[0] - problem.depth) ** 2.0), rel=1e-5)
    along = np.cos(np.arange(240.0)).reshape(12, 20)

    def in_double(height: Any) -> float:
        h = run_shallow_water_in_numpy(problem, height)[0]
        return float(0.5 * np.sum((h - problem.depth) ** 2))

    slope = _slope(in_double, (problem.height.astype(float),), (along,), 1e-2)
    assert _dot((gradient.astype(float),), (along,)) == pytest.approx(slope, rel=1e-4)
