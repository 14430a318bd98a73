"""Draws docs/images/model-bloch.png: the default pulse design, before and after.

python docs/models_bloch.py [picture.png]    (about half a minute; needs matplotlib)
"""

import sys
from pathlib import Path

import numpy as np
import scipy.optimize

import backsweep as bs
from backsweep.problems.pulse_design import PulseDesign

N_EVALUATIONS = 100


def optimise(design):
    """Variables before and after, and their misfits."""
    start = design.start()
    names = list(start)
    total = bs.value_and_grad(lambda p: bs.sum_over(design.items, lambda i: design.misfit(p, i)))

    def split(x):
        return dict(zip(names, np.split(x, len(names)), strict=True))

    def evaluate(x):
        value, gradient = total(split(x))
        return float(value), np.concatenate([gradient[name] for name in names])

    x = np.concatenate([start[name] for name in names])
    # SciPy's ftol is absolute below a misfit of 1.
    options = {"maxfun": N_EVALUATIONS, "ftol": 0.0, "gtol": 0.0}
    result = scipy.optimize.minimize(evaluate, x, jac=True, method="L-BFGS-B", options=options)
    return (start, evaluate(x)[0]), (split(result.x), result.fun)


def draw(design, designs, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    coords = {name: 1e3 * values for name, (values, _) in design.coords.items()}
    for (parameters, misfit), label, color in zip(
        designs, ("start", "designed"), ("tab:gray", "tab:blue"), strict=True
    ):
        fields = {name: values for name, (values, *_) in design.fields(parameters).items()}
        axes[0].plot(coords["time"], 1e6 * fields["rf"].real, color=color, lw=1)
        axes[1].plot(coords["edge"], 1e3 * fields["gradient"], color=color, lw=1)
        profile = fields["profile"][0]
        text = f"{label}: misfit {misfit:.1e}"
        axes[2].plot(coords["position"], profile.imag, color=color, lw=1, label=text)
        axes[2].plot(coords["position"], profile.real, color=color, lw=1, ls=":")
    target = np.where(design.weight > 0, design.target_xy.imag, np.nan)
    axes[2].plot(coords["position"], target, "k", lw=0.8, label="target")
    axes[0].set(xlabel="time [ms]", ylabel="RF, real part [µT]")
    axes[1].set(xlabel="time [ms]", ylabel="gradient [mT/m]")
    axes[2].set(xlabel="position [mm]", ylabel="My (full), Mx (dotted)", xlim=(-15, 15))
    axes[2].legend(fontsize=7, loc="upper right")
    figure.savefig(path, dpi=110)


def main():
    default = Path(__file__).parent / "images" / "model-bloch.png"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    design = PulseDesign()
    designs = optimise(design)
    draw(design, designs, path)
    print(f"misfit {designs[0][1]:.3g} -> {designs[1][1]:.3g}, {path}")


if __name__ == "__main__":
    main()
