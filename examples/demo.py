"""Seismic full-waveform inversion on a model that the code makes: `make demo`.

A sea, folded layers, a fault and a salt body; shots from the sea surface; the velocity is sought
that explains what the receivers recorded, from a smooth start. The time step is plain NumPy (see
`acoustic.py`), the gradient comes from backsweep, the optimiser from SciPy. About a minute.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.optimize

import backsweep as bs
from acoustic import draw_inversion, padded_shape, record, ricker

SHAPE = (80, 220)  # z, x
SPACING = 40.0  # m
DT = 4e-3  # s
N_STEPS = 1000
SEA_FLOOR = 12  # points
SHOT_X = np.linspace(10, SHAPE[1] - 11, 6).astype(int)
RECEIVERS = (np.full(105, 3), np.arange(5, 215, 2))


def make_model():
    """Velocity [m/s], float32."""
    z, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    throw = np.where(x > 150 - 0.5 * z, 6.0, 0.0)  # the fault, dipping to the left
    depth = z - SEA_FLOOR + throw + 4 * np.sin(x / 23) * np.clip((z - SEA_FLOOR) / 30, 0, 1)
    layer = np.floor(depth.clip(0) / 7)
    velocity = 1700 + 22 * depth.clip(0) + np.where(layer % 2 == 0, 150, -150)
    salt = ((x - 85) / 32) ** 2 + ((z - 48 - 3 * np.sin(x / 9)) / 11) ** 2 < 1
    velocity[salt] = 3900
    velocity[z < SEA_FLOOR] = 1500
    return velocity.astype(np.float32)


def make_start(true):
    """The true model, smoothed below the sea floor."""
    slowness = scipy.ndimage.gaussian_filter(1 / true[SEA_FLOOR:], 9, mode="nearest")
    return np.concatenate([true[:SEA_FLOOR], 1 / slowness]).astype(np.float32)


def invert(start, misfit_and_gradient, n_evaluations):
    """Best model, misfit of each evaluation, report of the last gradient."""
    # Below the sea floor; in units that grow with depth, since shallow points move the data more.
    depth = np.arange(1, SHAPE[0] - SEA_FLOOR + 1)[:, np.newaxis]
    unit = 1000 * depth / depth.mean()
    history, best, reports = [], [], []

    def evaluate(unknowns):
        velocity = start.copy()
        velocity[SEA_FLOOR:] = unknowns.reshape(-1, SHAPE[1]) * unit
        value, gradient, report = misfit_and_gradient(velocity)
        history.append(float(value))
        reports.append(report)
        if value <= min(history):
            best[:] = [velocity]
        print(
            f"evaluation {len(history):2d}: misfit {value / history[0]:.4f} of "
            f"the start, {report.seconds:.2f} s, of it {report.compile_seconds:.2f} s compiling",
            flush=True,
        )
        return value / history[0], (gradient[SEA_FLOOR:] * unit).ravel() / history[0]

    x0 = (start[SEA_FLOOR:] / unit).ravel()
    options = {"maxfun": n_evaluations, "maxcor": 20, "ftol": 0}
    scipy.optimize.minimize(evaluate, x0, jac=True, method="L-BFGS-B", options=options)
    return best[0], history, reports[-1]


def print_summary(report, memory, relative_misfit, relative_errors):
    n_shots, scan = len(report.scans), report.scans[0]
    everything = N_STEPS * np.prod(padded_shape(SHAPE)) * np.float32().nbytes
    print(f"""
misfit     {relative_misfit:.4f} of the start; model error {relative_errors[0]:.4f}, at the start \
{relative_errors[1]:.4f}
one gradient: {n_shots} shots of {scan.n_steps} steps, {report.seconds:.2f} s, {scan.executor} \
code, {scan.n_threads} threads
memory     {scan.snapshot_bytes_memory / 1e6:.1f} MB for {scan.n_snapshots} snapshots of a budget \
of {memory} (one shot at a time); every field would need {everything / 1e6:.0f} MB
recomputed {scan.schedule}: {report.n_advances} advances ({scan.n_advances / scan.n_steps:.2f} per \
step) and {report.n_reverses} reverse steps
fingerprints of the last evaluation: value {report.value_fingerprint}, gradient \
{report.gradient_fingerprint}""")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", default="20 MB", help="budget for snapshots")
    parser.add_argument("--evaluations", type=int, default=35)
    parser.add_argument("--picture", type=Path, default=Path("demo.png"))
    arguments = parser.parse_args()

    begin = time.perf_counter()
    true = make_model()
    start = make_start(true)
    wavelet = ricker(4.0, DT, N_STEPS)
    checkpointing = bs.Checkpointing(memory=arguments.memory)

    def simulate(velocity, shot_x):
        return record(velocity, (2, shot_x), RECEIVERS, wavelet, DT, SPACING, checkpointing)

    shots = [(x, simulate(true, x)) for x in SHOT_X]

    def misfit(velocity):
        def of_shot(shot):
            shot_x, observed = shot
            return 0.5 * np.sum((simulate(velocity, shot_x) - observed) ** 2)

        return bs.sum_over(shots, of_shot)

    misfit_and_gradient = bs.value_and_grad(misfit, has_report=True)
    inverted, history, report = invert(start, misfit_and_gradient, arguments.evaluations)

    errors = [np.linalg.norm(v - true) / np.linalg.norm(true) for v in (inverted, start)]
    print_summary(report, arguments.memory, min(history) / history[0], errors)
    draw_inversion(arguments.picture, true, start, inverted, history, SPACING)
    print(f"picture    {arguments.picture.resolve()}; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
