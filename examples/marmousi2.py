"""Full-waveform inversion of Marmousi2: 8 shots, 183 receivers, 1678 time steps.

    python examples/marmousi2.py FOLDER

FOLDER holds marmousi2_true.mat and marmousi2_smooth.mat of ADSeismic.jl (Zhu, Xu, Darve & Beroza
2021; the model: Martin, Wiley & Marfurt 2006): P velocity on 202 x 68 points, sources, receivers,
wavelet. Written are a picture, output/marmousi2.png, and the figures, output/marmousi2.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.io
import scipy.optimize

import backsweep as bs
from acoustic import draw_inversion, record


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the two .mat files")
    parser.add_argument("--output", type=Path, default=Path("output"), help="for the results")
    parser.add_argument("--maxfun", type=int, default=40, help="evaluations of the misfit")
    parser.add_argument("--depth-power", type=float, default=1.0, help="0: unscaled unknowns")
    parser.add_argument("--memory", default="1 GB", help="budget for snapshots")
    return parser.parse_args()


def load_experiment(folder):
    """Models as (z, x), sources, receivers, wavelets; the files count points from 1."""

    def load(name):
        path = folder / f"marmousi2_{name}.mat"
        return scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)

    data = load("true")
    return SimpleNamespace(
        true=data["vp"].T.astype(np.float32),  # m/s
        start=load("smooth")["vp"].T.astype(np.float32),
        dt=float(data["dt"]),  # s
        spacing=float(data["dx"]),  # m
        sources=[(s.iy - 1, s.ix - 1) for s in data["source"]],
        receivers=[(r.iy - 1, r.ix - 1) for r in data["receiver"]],
        wavelets=[(s.vec / np.abs(s.vec).max()).astype(np.float32) for s in data["source"]],
    )


def write_results(folder, experiment, history, errors, seconds, total, best):
    """Figures as JSON, and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "evaluations": len(history),
        "misfit": min(history) / history[0],
        "model_error_start": errors[0],
        "model_error": errors[int(np.argmin(history))],
        "seconds": total,
        "seconds_per_gradient": float(np.median(seconds)),
        "misfit_history": [value / history[0] for value in history],
    }
    (folder / "marmousi2.json").write_text(json.dumps(figures, indent=1) + "\n")
    e = experiment
    draw_inversion(folder / "marmousi2.png", e.true, e.start, best, history, e.spacing)
    print(
        f"misfit {figures['misfit']:.4f} of the start, model error {errors[0]:.4f} -> "
        f"{figures['model_error']:.4f}, {len(history)} evaluations in {total:.0f} s"
    )


def main():
    arguments = parse_arguments()

    # 1. The experiment.
    e = load_experiment(arguments.folder)
    true, start, shots = e.true, e.start, range(len(e.sources))
    checkpointing = bs.Checkpointing(memory=arguments.memory)

    # 2. The forward problem. The observed pressure is that of the true model.
    def simulate(velocity, shot):
        source, r, wavelet = e.sources[shot], e.receivers[shot], e.wavelets[shot]
        return record(velocity, source, r, wavelet, e.dt, e.spacing, checkpointing)

    observed = [simulate(true, shot) for shot in shots]

    # 3. The misfit: least squares, unweighted, all shots, full band. Its gradient needs no code.
    def misfit(velocity):
        def of_shot(shot):
            return 0.5 * np.sum((simulate(velocity, shot) - observed[shot]) ** 2)

        return bs.sum_over(shots, of_shot)

    misfit_and_gradient = bs.value_and_grad(misfit, has_report=True)

    # 4. The unknowns: velocity where the start model is no water, in units that grow with depth
    #    below the sea floor, since shallow points move the data more.
    is_rock = start > 1501
    weight = np.cumsum(is_rock, axis=0)[is_rock] ** arguments.depth_power
    unit = 1000 * weight / weight.mean()  # m/s

    def to_velocity(unknowns):
        velocity = start.copy()
        velocity[is_rock] = unknowns * unit
        return velocity

    history, errors, seconds, best = [], [], [], (np.inf, start)

    def evaluate(unknowns):
        nonlocal best
        velocity = to_velocity(unknowns)
        value, gradient, report = misfit_and_gradient(velocity)
        best = min(best, (value, velocity), key=lambda pair: pair[0])
        history.append(float(value))
        errors.append(float(np.linalg.norm(velocity - true) / np.linalg.norm(true)))
        seconds.append(report.seconds)
        progress = f"misfit {value / history[0]:.4f}, model error {errors[-1]:.4f}"
        print(f"evaluation {len(history):2d}: {progress}, {report.seconds:.2f} s", flush=True)
        scaled = np.float64(gradient[is_rock]) * unit
        return value / history[0], scaled / history[0]

    # 5. L-BFGS-B from the smooth model.
    begin = time.perf_counter()
    options = {"maxfun": arguments.maxfun, "maxiter": arguments.maxfun, "maxcor": 20, "ftol": 0}
    scipy.optimize.minimize(
        evaluate, start[is_rock] / unit, jac=True, method="L-BFGS-B", options=options
    )
    total = time.perf_counter() - begin

    # 6. Results.
    write_results(arguments.output, e, history, errors, seconds, total, best[1])


if __name__ == "__main__":
    main()
