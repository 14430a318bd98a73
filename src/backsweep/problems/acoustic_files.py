"""What the acoustic problem reads: models, wavelet and records, refused in terms of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backsweep.errors import ModelError, RunFileError
from backsweep.models.acoustic_checks import check_velocity
from backsweep.models.wavelets import ricker
from backsweep.problems.acoustic_settings import AcousticSettings
from backsweep.problems.files import StoredArray, open_array
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


def read_records(
    name: str, shape: tuple[int, int, int], shots: Sequence[int]
) -> dict[int, np.ndarray]:
    """Recorded pressure (time steps, receivers) of some shots.

    Parameters
    ----------
    name : str
        The file and its key.
    shape : tuple of int
        Of the whole array: shots, time steps, receivers.
    shots : sequence of int
        Which are read, and from an HDF5 file little else.

    Raises
    ------
    RunFileError
    """
    first, stop = min(shots), max(shots) + 1
    stored = _opened("observed", name)
    if stored.shape != shape:
        raise RunFileError(
            f"problem.observed: {name} has shape {stored.shape}; (shots, time steps, receivers) = "
            f"{shape} is needed"
        )
    data = _real("observed", name, slice(first, stop))
    if not np.all(np.isfinite(data)):
        shot, step, receiver = (int(k) for k in np.argwhere(~np.isfinite(data))[0])
        raise RunFileError(
            f"problem.observed: {name} is {data[shot, step, receiver]} at shot {first + shot}, "
            f"time step {step}, receiver {receiver}; it must be finite everywhere"
        )
    return {shot: data[shot - first] for shot in shots}


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


def _opened(key: str, name: str) -> StoredArray:
    try:
        return open_array(name)
    except RunFileError as error:
        raise RunFileError(f"problem.{key}: {error}") from error


def _real(key: str, name: str, rows: slice | None = None) -> np.ndarray:
    stored = _opened(key, name)
    try:
        array = stored.read(rows)
    except RunFileError as error:
        raise RunFileError(f"problem.{key}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise RunFileError(f"problem.{key}: {name} holds {array.dtype}; real numbers are needed")
    return array
