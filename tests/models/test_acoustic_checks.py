"""What `Acoustic.check` refuses, and with which words."""

import dataclasses

import numpy as np
import pytest

from backsweep.errors import ModelError
from backsweep.models import Acoustic, ricker
from backsweep.models.wavelets import highest_frequency

MODEL = Acoustic((30, 20), 10.0, 1e-3, 200)
RIGHT = {
    "velocity": np.full((30, 20), 2000.0),
    "source": (100.0, 50.0),
    "receivers": [(150.0, 50.0), (200.0, 50.0)],
    "wavelet": ricker(12.0, 1e-3, 200),
}


def with_value(value):
    velocity = RIGHT["velocity"].copy()
    velocity[3, 4] = value
    return {"velocity": velocity}


def test_what_is_right_passes():
    MODEL.check(**RIGHT)
    dataclasses.replace(MODEL, free_surface=True).check(**RIGHT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"velocity": np.full((20, 30), 2e3)}, r"shape \(20, 30\), the model \(30, 20\)"),
        ({"velocity": np.full((30, 20), 2000)}, "dtype int64: convert it to float32 or float64"),
        (with_value(np.nan), r"velocity is nan m/s at point \(3, 4\)"),
        (with_value(np.inf), r"velocity is inf m/s at point \(3, 4\)"),
        (with_value(-1.0), r"velocity is -1 m/s at point \(3, 4\): it must be finite and positive"),
        ({"velocity": np.full((30, 20), 1.5)}, "1.5 to 1.5 look like km/s: multiply by 1000"),
        (with_value(9000.0), r"stable time step 0.000616\d* s, set by the velocity 9000 m/s at"),
        ({"source": (300.0, 50.0)}, "source 0 at x = 300 m, z = 50 m .* from 0 to 290 m in x"),
        ({"receivers": [(0, 0), (5, -20)]}, "receiver 1 at x = 5 m, z = -20 m .* to 190 m in z"),
        ({"receivers": [(np.nan, 0.0)]}, "receiver 0 at x = nan m"),
        ({"receivers": [(1.0, 2.0, 3.0)]}, r"shape \(1, 3\): give pairs"),
        ({"wavelet": np.zeros(199)}, "199 samples and the model 200 steps"),
        ({"wavelet": np.zeros((200, 2))}, r"shape \(200, 2\) for 1 sources"),
        (
            {"wavelet": np.full(200, np.nan)},
            r"the wavelet is nan at point \(0,\): it must be finite",
        ),
        ({"wavelet": ricker(40.0, 1e-3, 200)}, r"1.8\d points per wavelength .* needs 3; take a"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ModelError, match=message):
        MODEL.check(**{**RIGHT, **changes})


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({"order": 3}, {}, "order is 3: 2, 4, 6 and 8 are supported"),
        ({"n_absorb": 2}, {}, "at least 4 points"),
        ({"free_surface": True}, {"source": (100.0, 0.0)}, "source 0 lies at z = 0 m, on the free"),
        ({"order": 2}, {}, "order 2 needs 8"),
        ({"dt": 0.0}, {}, "dt is 0 s"),
    ],
)
def test_wrong_models(fields, changes, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(MODEL, **fields).check(**{**RIGHT, **changes})


def test_simulate_refuses_what_it_can_see_while_tracing():
    with pytest.raises(ModelError, match="outside of the model"):
        MODEL.simulate(**{**RIGHT, "source": (300.0, 50.0)})


def test_highest_frequency_of_a_ricker_wavelet():
    assert np.isclose(highest_frequency(ricker(12.0, 1e-3, 1000), 1e-3), 2.76 * 12, rtol=0.01)
    assert highest_frequency(np.zeros(100), 1e-3) == 0.0
    assert MODEL.points_per_wavelength(RIGHT["velocity"], np.zeros(200)) == np.inf
