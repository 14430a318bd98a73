"""Reference simulations by JEMRIS and KomaMRI, read from the shared data folder.

The folder is no part of the repository: BACKSWEEP_SHARED_DATA, else ../shared/data beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from backsweep.models.bloch import GAMMA, Sequence, Spins

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("BACKSWEEP_SHARED_DATA", ROOT.parent / "shared" / "data")) / "mr"

needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"{FOLDER} is absent: set BACKSWEEP_SHARED_DATA"
)


def read_spins(path: Path) -> Spins:
    """Spins of a JEMRIS sample: M0, R1, R2, R2* [1/ms], off-resonance [rad/s] on a grid."""
    with h5py.File(path) as file:
        data = file["sample/data"][()]
        size = file["sample/resolution"][()].ravel() * 1e-3
    n_y, n_x = data.shape[:2]
    iy, ix = np.nonzero(data[..., 0])
    m0, r1, r2, _, off_resonance = data[iy, ix].T
    # The grid is centred at zero, empty rows and columns included.
    position = [(ix - (n_x - 1) / 2) * size[0], (iy - (n_y - 1) / 2) * size[1], 0.0 * ix]
    return Spins(np.stack(position, axis=1), m0, 1e-3 / r1, 1e-3 / r2, off_resonance)


def read_diagram(name: str) -> Sequence:
    """Waveforms as JEMRIS sampled them; the mean of both ends holds for an interval."""
    with h5py.File(FOLDER / "jemris" / f"{name}.h5") as file:
        diagram = {key: values[()] for key, values in file["seqdiag"].items()}
    once = np.append(True, np.diff(diagram["T"]) > 1e-9)  # ms
    time, tx, phase, receiver = (diagram[key][once] for key in ("T", "TXM", "TXP", "RXP"))
    gradient = np.stack([diagram["G" + axis][once] for axis in "XYZ"], axis=1)
    adc = np.flatnonzero(receiver >= 0)
    return Sequence(
        np.diff(time) * 1e-3,
        _mean(tx * np.exp(1j * phase)) * 1e3 / GAMMA,  # rad/ms
        _mean(gradient) * 1e6 / GAMMA,  # rad/ms/mm
        adc - 1,
        receiver[adc],
    )


def read_signal(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times [s] and signal per spin of JEMRIS."""
    with h5py.File(FOLDER / "jemris" / f"{name}_signal.h5") as file:
        mx, my, _ = file["signal/channels/00"][()].T
        return file["signal/times"][()] * 1e-3, mx + 1j * my


def read_koma_signal() -> np.ndarray:
    with h5py.File(FOLDER / "koma" / "column1d_signal_koma.mat") as file:
        values = file["signal"][()].ravel()
    return values["real"] + 1j * values["imag"]


def nrmse(signal: np.ndarray, reference: np.ndarray) -> float:
    """Norm of the difference relative to that of the reference."""
    return float(np.linalg.norm(signal - reference) / np.linalg.norm(reference))


def _mean(values: np.ndarray) -> np.ndarray:
    return 0.5 * (values[1:] + values[:-1])
