"""Pulseq sequence files, read by PyPulseq, as waveforms for the Bloch model.

Intervals end at blocks, at corners of the gradients, at samples of the ADC and, where the RF
changes, at its raster. The gradient of an interval is its exact mean, the RF its value in the
middle. Not read: offsets in ppm of the static field (refused); triggers and labels do not
matter here.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backsweep.errors import ModelError
from backsweep.models.bloch import GAMMA
from backsweep.models.spins import Sequence

# Instants closer than this are one [s].
_RESOLUTION = 1e-10


def read(path: str | Path, *, gamma: float = GAMMA) -> Sequence:
    """Read a Pulseq file (extra `mr`).

    Parameters
    ----------
    path : str or Path
        A `.seq` file of a version that the installed PyPulseq reads (1.5.0 reads 1.2 to 1.5).
    gamma : float [rad/s/T]
        Pulseq holds Hz and Hz/m; these are divided by gamma / 2 pi. Simulate with the same.

    Returns
    -------
    sequence : Sequence
        In SI units; one entry of `adc_steps` and `adc_phase` for each sample.

    Raises
    ------
    ModelError
        If PyPulseq is not installed, or the file cannot be read or holds offsets in ppm.

    Notes
    -----
    Phases are those of the file: RF at the phase p is along (cos p, sin p), a frequency offset f
    adds 2 pi f t since the pulse or ADC began.

    References
    ----------
    .. [1] K. J. Layton et al., Pulseq: a rapid and hardware-independent pulse sequence
       prototyping framework, Magn. Reson. Med. 77, 1544 (2017), doi:10.1002/mrm.26235.
    """
    file = _open(Path(path), _import_pypulseq())
    parts = []
    n_steps = 0
    for number in file.block_events:
        part = _convert(file.get_block(number), file.block_durations[number], file.rf_raster_time)
        parts.append((*part[:3], part[3] + n_steps, part[4]))
        n_steps += len(part[0])
    if not n_steps:
        raise ModelError(f"{path} holds no block that lasts: give a sequence with blocks")
    durations, rf, gradient, steps, phase = (np.concatenate(p) for p in zip(*parts, strict=True))
    hertz = 2 * np.pi / gamma  # T
    return Sequence(durations, hertz * rf, hertz * gradient, steps, phase)


def _import_pypulseq() -> ModuleType:
    try:
        import pypulseq
    except ImportError as error:
        raise ModelError("Pulseq files need PyPulseq: pip install 'backsweep[mr]'") from error
    module: ModuleType = pypulseq
    return module


def _open(path: Path, pypulseq: ModuleType) -> Any:
    if not path.is_file():
        raise ModelError(f"{path} is no file: give the path of a Pulseq file (.seq)")
    file = pypulseq.Sequence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older versions of the format, default rasters
            file.read(str(path))
            # PyPulseq fails in many ways on what is no Pulseq file, or reads nothing.
            if not file.block_events:
                raise ValueError("no blocks")
    except Exception as error:
        raise ModelError(
            f"PyPulseq cannot read {path} ({type(error).__name__}: {error}): give a Pulseq file"
        ) from error
    return file


def _convert(block: Any, duration: float, raster: float) -> tuple[np.ndarray, ...]:
    """Durations, RF [Hz], gradient [Hz/m], sampled steps and receiver phases of a block."""
    rf, adc = getattr(block, "rf", None), getattr(block, "adc", None)
    gradients = [getattr(block, "g" + axis, None) for axis in "xyz"]
    _refuse_ppm(rf, adc)
    corners = [None if g is None else _corners(g) for g in gradients]
    samples = (
        np.empty(0) if adc is None else adc.delay + adc.dwell * (np.arange(adc.num_samples) + 0.5)
    )
    instants = [np.array([0, duration]), samples, *(c[0] for c in corners if c is not None)]
    if rf is not None:
        instants.append(_rf_edges(rf, raster))
    ticks = np.unique(np.round(np.concatenate(instants) / _RESOLUTION).astype(np.int64))
    ticks = ticks[(ticks >= 0) & (ticks <= round(duration / _RESOLUTION))]
    edges = ticks * _RESOLUTION
    middle = 0.5 * (edges[1:] + edges[:-1])
    gradient = np.zeros((len(middle), 3))
    for axis, points in enumerate(corners):
        if points is not None:
            gradient[:, axis] = np.interp(middle, *points, left=0.0, right=0.0)
    field = np.zeros(len(middle), complex) if rf is None else _rf_at(rf, middle)
    steps = np.searchsorted(ticks, np.round(samples / _RESOLUTION).astype(np.int64)) - 1
    phase = np.empty(0) if adc is None else _adc_phase(adc, samples)
    return np.diff(edges), field, gradient, steps, phase


def _refuse_ppm(*events: Any) -> None:
    for event in events:
        for name in ("freq_ppm", "phase_ppm"):
            value = float(getattr(event, name, None) or 0)
            if value:
                raise ModelError(
                    f"a Pulseq block has {name} = {value:g}: write the offset in Hz or rad, as it "
                    "is at your static field"
                )


def _corners(gradient: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times [s] and values [Hz/m] between which a gradient is linear."""
    if gradient.type == "trap":
        spans = [gradient.delay, gradient.rise_time, gradient.flat_time, gradient.fall_time]
        return np.cumsum(spans), gradient.amplitude * np.array([0.0, 1.0, 1.0, 0.0])
    times = np.concatenate([[0.0], gradient.tt, [gradient.shape_dur]])
    values = np.concatenate([[gradient.first], gradient.waveform, [gradient.last]])
    return gradient.delay + times, values


def _rf_edges(rf: Any, raster: float) -> np.ndarray:
    """Instants at which the RF may change."""
    if rf.freq_offset == 0 and np.all(rf.signal == rf.signal[0]):
        return np.array([rf.delay, rf.delay + rf.shape_dur])
    edges = raster * np.arange(int(rf.shape_dur / raster) + 1)
    return np.append(rf.delay + edges, rf.delay + rf.shape_dur)


def _rf_at(rf: Any, times: np.ndarray) -> np.ndarray:
    """RF [Hz] at times since the beginning of its block."""
    t = times - rf.delay
    inside = (t > 0) & (t < rf.shape_dur)
    envelope = np.interp(t, rf.t, rf.signal.real) + 1j * np.interp(t, rf.t, rf.signal.imag)
    phase = rf.phase_offset + 2 * np.pi * rf.freq_offset * t
    return np.where(inside, envelope * np.exp(1j * phase), 0)


def _adc_phase(adc: Any, samples: np.ndarray) -> np.ndarray:
    """Receiver phase [rad] at the samples."""
    phase = adc.phase_offset + 2 * np.pi * adc.freq_offset * (samples - adc.delay)
    modulation = getattr(adc, "phase_modulation", None)
    return np.asarray(phase if modulation is None or not len(modulation) else phase + modulation)
