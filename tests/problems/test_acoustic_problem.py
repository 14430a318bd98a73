"""The seismic problem: data of stages, and what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from backsweep.errors import ModelError, RunFileError
from backsweep.problems.acoustic import AcousticProblem

TABLE = {
    "made": {"shape": (40, 24)},
    "spacing": 20.0,
    "dt": 2e-3,
    "n_steps": 150,
    "order": 4,
    "n_absorb": 8,
    "dtype": "float64",
    "wavelet": {"ricker": 6.0},
    "sources": {"x": [200.0, 500.0], "z": 20.0},
    "receivers": {"x": {"first": 0.0, "last": 780.0, "number": 9}, "z": 20.0},
}


def problem(**changes):
    return AcousticProblem.from_table(TABLE | changes, ())


@pytest.mark.parametrize("free_surface", [False, True])
def test_filtered_data_are_those_of_the_filtered_wavelet(free_surface):
    low = problem(free_surface=free_surface).at_stage(lowpass=5.0)
    low.prepare([1])
    data = low.observed(1)
    np.testing.assert_allclose(
        low.simulate(low.true(), 1), data, atol=1e-12 * np.max(np.abs(data)), rtol=0
    )


def test_a_lowpass_must_be_a_frequency():
    with pytest.raises(RunFileError, match="stages.lowpass = '5 Hz': a number"):
        problem().at_stage(lowpass="5 Hz")
    with pytest.raises(ModelError, match="Nyquist"):
        problem().at_stage(lowpass=300.0)


def test_a_model_without_a_point_that_is_sought_is_refused():
    with pytest.raises(ModelError, match="fixed_velocity = 9000 m/s leave no point"):
        problem(fixed_velocity=9000.0)


def test_only_the_records_of_the_shots_asked_for_are_read(tmp_path):
    """A rank must not hold, nor judge, what others work on."""
    made = problem()
    made.prepare([0, 1])
    records = np.stack([made.observed(0), made.observed(1)])
    records[1, 3, 2] = np.nan
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = records
    recorded = problem(observed=str(tmp_path / "data.h5"))
    recorded.prepare([0])
    assert np.array_equal(recorded.observed(0), made.observed(0))
    with pytest.raises(RunFileError, match="nan at shot 1, time step 3, receiver 2"):
        recorded.prepare([1])
