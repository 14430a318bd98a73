"""Pictures of models.md: python docs/models.py draws them into docs/images/."""

from pathlib import Path

import matplotlib
import numpy as np

import backsweep as bs
from backsweep.models import Acoustic, Burgers, Heat, ShallowWater, ricker

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).with_name("images")


def draw_acoustic():
    """Velocity, traces with a free surface, gradient."""
    model = Acoustic((160, 90), 10.0, 1.5e-3, 700, free_surface=True, frequency=8.0)
    x, z = np.mgrid[:160, :90] * 10.0
    smooth = 1800 + 0.8 * z
    true = np.where(z > 500 + 80 * np.sin(x / 250), smooth + 500, smooth)
    receivers = np.stack([np.arange(20.0, 1580.0, 20.0), np.full(78, 25.0)], axis=1)
    source, wavelet = (805.0, 25.0), ricker(8.0, 1.5e-3, 700)
    model.check(true, source, receivers, wavelet)
    observed = model.simulate(true, source, receivers, wavelet)

    def misfit(velocity):
        return 0.5 * np.sum((model.simulate(velocity, source, receivers, wavelet) - observed) ** 2)

    gradient = bs.grad(misfit)(smooth)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    extent = (0, 1.6, 0.9, 0)
    image = axes[0].imshow(true.T / 1000, extent=extent, cmap="viridis", aspect="auto")
    axes[0].plot(
        *receivers[::4].T / 1000, "wv", markersize=5, markeredgecolor="k", label="receivers"
    )
    axes[0].plot(source[0] / 1000, source[1] / 1000, "r*", markersize=9, label="source")
    axes[0].set(title="velocity [km/s]", xlabel="x [km]", ylabel="z [km]")
    axes[0].legend(loc="lower left", fontsize=8)
    figure.colorbar(image, ax=axes[0])
    limit = 0.2 * np.abs(observed).max()
    axes[1].imshow(
        observed, extent=(0.02, 1.56, 1.05, 0), cmap="gray", vmin=-limit, vmax=limit, aspect="auto"
    )
    axes[1].set(
        title="pressure at the receivers", xlabel="x [km]", ylabel="t [s]", xticks=[0.5, 1.0, 1.5]
    )
    limit = np.percentile(np.abs(gradient), 98)
    image = axes[2].imshow(
        gradient.T, extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
    )
    axes[2].set(title="gradient of the misfit", xlabel="x [km]", yticks=[])
    figure.savefig(IMAGES / "model-acoustic.png", dpi=100)


def draw_heat():
    """A hot spot beside a wall that conducts badly."""
    n, spacing = 80, 0.0125
    x, y = (np.mgrid[:n, :n] + 0.5) * spacing
    kappa = np.where(abs(x - 0.55) < 0.05, 0.02, 1.0)
    initial = np.exp(-((x - 0.3) ** 2 + (y - 0.5) ** 2) / 0.01)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    for axis, n_steps in zip(axes, (0, 300, 1500), strict=True):
        model = Heat((n, n), spacing, 3e-5, n_steps)
        model.check(kappa, initial)
        u = model.simulate(kappa, initial) if n_steps else initial
        image = axis.imshow(u.T, extent=(0, 1, 1, 0), cmap="inferno", vmin=0, vmax=u.max())
        for edge in (0.5, 0.6):
            axis.axvline(edge, color="w", lw=0.8, ls="--")
        axis.set(title=f"temperature [K], t = {n_steps * model.dt:.3g} s", xlabel="x [m]")
        figure.colorbar(image, ax=axis, shrink=0.8)
    axes[0].set(ylabel="y [m]")
    figure.savefig(IMAGES / "model-heat.png", dpi=100)


def draw_burgers():
    """A wave that steepens, and where the shock is most sensitive to the start."""
    n, spacing, dt = 400, 1 / 400, 4e-4
    x = (np.arange(n) + 0.5) * spacing
    initial = 0.5 + np.sin(2 * np.pi * x)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for n_steps in (100, 300, 900):
        model = Burgers((n,), spacing, dt, n_steps)
        model.check(initial, 2e-3)
        left.plot(x, model.simulate(initial, 2e-3), label=f"t = {n_steps * dt:.2f} s")
    left.plot(x, initial, "k--", lw=1, label="initial")
    left.set(title="velocity [m/s]", xlabel="x [m]")
    left.legend(fontsize=8)
    gradient = bs.grad(lambda u: np.sum(model.simulate(u, 2e-3) ** 2) * spacing)(initial)
    right.plot(x, gradient / spacing)
    right.set(title="d energy(t = 0.36 s) / d initial velocity [m/s]", xlabel="x [m]")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(IMAGES / "model-burgers.png", dpi=100)


def draw_shallow_water():
    """A jet that meanders, and where the height at a point came from."""
    shape, spacing = (80, 160), 1e4
    y, x = (np.mgrid[: shape[0], : shape[1]] + 0.5) * spacing
    u = 12 * np.exp(-(((y - 4e5) / 8e4) ** 2))
    balanced = np.cumsum(-spacing * 1e-4 / 9.81 * u, axis=0)
    bump = 3 * np.exp(-((x - 4e5) ** 2 + (y - 4.5e5) ** 2) / 6e4**2)
    height = 100 + balanced - balanced.mean() + bump
    model = ShallowWater(shape, spacing, 40.0, 1050, viscosity=200.0)
    model.check(height, u)
    last, u_last, v_last = model.simulate(height, u)
    gradient = bs.grad(lambda h: model.simulate(h, u)[0][44, 120])(height)
    figure, axes = plt.subplots(1, 3, figsize=(13, 2.8), layout="constrained", sharey=True)
    extent = (0, 1.6, 0, 0.8)
    for axis, h, title in zip(axes, (height, last), ("t = 0", "t = 11.7 h"), strict=False):
        image = axis.imshow(h, extent=extent, origin="lower", cmap="viridis")
        axis.set(title=f"height [m], {title}", xlabel="x [1000 km]")
        figure.colorbar(image, ax=axis)
    axes[0].set(ylabel="y [1000 km]")
    arrows = np.s_[4::8, 4::8]
    axes[1].quiver(x[arrows] / 1e6, y[arrows] / 1e6, u_last[arrows], v_last[arrows])
    limit = np.percentile(np.abs(gradient), 99.5)
    image = axes[2].imshow(
        gradient, extent=extent, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit
    )
    axes[2].plot(1.205, 0.445, "k+", markersize=10)
    axes[2].set(title="d height at the cross / d first height", xlabel="x [1000 km]")
    figure.colorbar(image, ax=axes[2])
    figure.savefig(IMAGES / "model-shallow-water.png", dpi=100)


if __name__ == "__main__":
    draw_acoustic()
    draw_heat()
    draw_burgers()
    draw_shallow_water()
