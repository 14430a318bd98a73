"""A tiny acoustic run and its files: 40 x 30 points, 140 steps, 3 shots."""

from __future__ import annotations

import h5py
import numpy as np
import scipy.io

from backsweep.storage.results import Variable, write_result

RUN = """
model = "acoustic"

[problem]
true = "true.npy"
start = "start.npy"
dtype = "float64"
spacing = 10.0
dt = 2.5e-3
n_steps = 140
order = 2
n_absorb = 6
max_velocity = 2200.0
frequency = 8.0
wavelet = { ricker = 8.0, delay = 0.12 }
sources = { x = { first = 50, last = 350, number = 3 }, z = 20 }
receivers = { x = { first = 20, last = 380, number = 19 }, z = 270 }

[optimiser]
evaluations = 5
"""


def models():
    """True and start velocity, (x, z), in m/s."""
    x, z = np.mgrid[:40, :30]
    start = 2000 + 5.0 * z
    return start + 150 * np.exp(-((x - 20) ** 2 + (z - 15) ** 2) / 20), start


def write_run(folder):
    """The run file, and its models as .npy, .mat (also of version 7.3) and .h5."""
    true, start = models()
    (folder / "run.toml").write_text(RUN)
    np.save(folder / "true.npy", true)
    np.save(folder / "start.npy", start)
    scipy.io.savemat(folder / "models.mat", {"velocity": start, "truth": true, "by": "me"})
    scipy.io.savemat(folder / "start.mat", {"velocity": start})
    write_result(folder / "models.h5", {"velocity": Variable(start, ("x", "z"))}, {})
    with h5py.File(folder / "plain.h5", "w") as file:
        file["velocity"] = start
        file["group/truth"] = true
        file["text"] = "two models"
    with h5py.File(folder / "new.mat", "w", userblock_size=512) as file:
        file["velocity"] = start.T
    with open(folder / "new.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def write_wrong(folder):
    """Files that no run can use."""
    true, start = models()
    for name, value in {"nan": np.nan, "inf": np.inf, "negative": -2000.0, "zero": 0.0}.items():
        changed = start.copy()
        changed[3, 4] = value
        np.save(folder / f"{name}.npy", changed)
    arrays = {
        "km": start / 1000,
        "fast": 3 * start,
        "slow": 0.5 * true,
        "complex": start + 0j,
        "text": start.astype(str),
        "bool": start > 0,
        "shorter": start[:-1],
        "line": start.ravel(),
        "empty": start[:0],
        "wavelet_short": np.hanning(20),
        "wavelet_long": np.hanning(200),
        "wavelet_nan": np.full(140, np.nan),
        "wavelet_of_each": np.ones((140, 3)),
        "wavelet_zero": np.zeros(140),
        "weights_nan": np.full(19, np.nan),
        "weights_zero": np.zeros(19),
        "data_turned": np.ones((3, 19, 140)),
        "data_nan": np.full((3, 140, 19), np.nan),
        "data_complex": np.ones((3, 140, 19)) * 1j,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for name in ("start.npy", "models.mat", "models.h5", "plain.h5"):
        whole = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(whole[: len(whole) // 2])
        (folder / f"nothing_{name}").write_bytes(b"")
        (folder / f"other_{name}").write_bytes(b"These are no arrays at all. Really not.\n" * 20)
    (folder / "folder.npy").mkdir()
    (folder / "model.segy").write_text("3200 bytes of text")
    (folder / "syntax.toml").write_text("model = \n")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    (folder / "empty.toml").write_text("")
