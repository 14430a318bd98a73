"""What the acoustic problem reads: models, wavelet and records, refused in terms of their keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backsweep.errors import ModelError, RunFileError
from backsweep.models.acoustic_checks import check_velocity
from backsweep.models.wavelets import ricker
from backsweep.problems.acoustic_settings import AcousticSettings
from backsweep.problems.files import read_array
from backsweep.problems.made import basin


def read_models(s: AcousticSettings) -> tuple[np.ndarray | None, np.ndarray]:
    """True (if known) and start velocity, shape (nx, nz) [m/s], of the dtype that is asked for.

    Raises
    ------
    RunFileError
    """
    if s.made is not None:
        true, start = basin(s.made.shape)
        return true.astype(s.dtype), start.astype(s.dtype)
    assert s.start is not None
    start = _velocity("start", s.start, s)
    known = None if s.true is None else _velocity("true", s.true, s)
    if known is not None and known.shape != start.shape:
        raise RunFileError(
            f"problem.true has shape {known.shape} and problem.start {start.shape}: they must agree"
        )
    return known, start


def make_wavelet(s: AcousticSettings) -> np.ndarray:
    """Shape (n_steps,), float64 [Pa], before any filter.

    Raises
    ------
    RunFileError
    """
    if s.wavelet.file is None:
        assert s.wavelet.ricker is not None
        wavelet = ricker(s.wavelet.ricker, s.dt, s.n_steps, s.wavelet.delay)
    else:
        wavelet = np.squeeze(_real("wavelet.file", s.wavelet.file).astype(np.float64))
        if wavelet.ndim != 1:
            raise RunFileError(
                f"problem.wavelet.file: {s.wavelet.file} has shape {wavelet.shape}; give one "
                "sample per time step, which all shots share"
            )
    return np.asarray(s.wavelet.amplitude * wavelet)


def read_records(name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Recorded pressure (shots, time steps, receivers).

    Raises
    ------
    RunFileError
    """
    data = _real("observed", name)
    if data.shape != shape:
        raise RunFileError(
            f"problem.observed: {name} has shape {data.shape}; (shots, time steps, receivers) = "
            f"{shape} is needed"
        )
    if not np.all(np.isfinite(data)):
        shot, step, receiver = (int(k) for k in np.argwhere(~np.isfinite(data))[0])
        raise RunFileError(
            f"problem.observed: {name} is {data[shot, step, receiver]} at shot {shot}, time step "
            f"{step}, receiver {receiver}; it must be finite everywhere"
        )
    return data


def read_weights(s: AcousticSettings, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Weights of records of a shape (shots, time steps, receivers), or of its last axes.

    Raises
    ------
    RunFileError
    """
    if s.weights is None:
        return None
    weights = _real("weights", s.weights).astype(s.dtype)
    allowed = [shape[-k:] for k in (1, 2, 3)]
    if weights.shape not in allowed:
        raise RunFileError(
            f"problem.weights: {s.weights} has shape {weights.shape}; one of "
            f"{', '.join(map(str, allowed))} is needed"
        )
    if not np.all(np.isfinite(weights) & (weights >= 0)):
        raise RunFileError(
            f"problem.weights: {s.weights} has weights that are negative or not finite"
        )
    return weights


def _velocity(key: str, name: str, s: AcousticSettings) -> np.ndarray:
    array = _real(key, name)
    if array.ndim != 2 or array.size == 0:
        raise RunFileError(
            f"problem.{key}: {name} has shape {array.shape}; give a model of two axes, "
            f"({', '.join(s.axes)})"
        )
    array = array.T if s.axes == "zx" else array
    try:
        check_velocity(array)
    except ModelError as error:
        raise RunFileError(f"problem.{key}: {Path(name).name}: {error}") from error
    return np.ascontiguousarray(array, dtype=s.dtype)


def _real(key: str, name: str) -> np.ndarray:
    try:
        array = read_array(name)
    except RunFileError as error:
        raise RunFileError(f"problem.{key}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise RunFileError(f"problem.{key}: {name} holds {array.dtype}; real numbers are needed")
    return array
