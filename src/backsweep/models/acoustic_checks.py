"""What `Acoustic.check` refuses, each with one sentence that names value, limit and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep.errors import ModelError
from backsweep.models.checks import check_dt, check_finite, check_positive
from backsweep.models.points import RADIUS
from backsweep.models.stencils import LEAST_POINTS

if TYPE_CHECKING:
    from backsweep.models.acoustic import Acoustic

KM_PER_SECOND_BELOW = 100.0
"""Velocities [m/s] below which the unit is taken for a mistake."""


def check(model: Acoustic, velocity: Any, source: Any, receivers: Any, wavelet: Any) -> None:
    """See `Acoustic.check`."""
    velocity, wavelet = np.asarray(velocity), np.asarray(wavelet)
    check_geometry(model, velocity, source, receivers, wavelet)
    check_velocity(velocity)
    check_finite("the wavelet", wavelet)
    _check_time_step(model, velocity)
    _check_resolution(model, velocity, wavelet)
    if model.free_surface:
        for name, points in (("source", source), ("receiver", receivers)):
            _check_below_surface(name, _positions(name, points))


def check_geometry(
    model: Acoustic, velocity: Any, source: Any, receivers: Any, wavelet: Any
) -> None:
    """Shapes, dtypes and positions: what is known while tracing as well."""
    if model.order not in LEAST_POINTS:
        raise ModelError(f"order is {model.order}: 2, 4, 6 and 8 are supported")
    if model.n_absorb < RADIUS:
        raise ModelError(
            f"n_absorb is {model.n_absorb}: give the frame at least {RADIUS} points, 20 for weak "
            "reflections"
        )
    if tuple(np.shape(velocity)) != tuple(model.shape):
        raise ModelError(
            f"velocity has shape {tuple(np.shape(velocity))}, the model {tuple(model.shape)}: "
            "give one velocity per point, (nx, nz), z pointing down"
        )
    dtype = getattr(velocity, "dtype", np.dtype(object))
    if dtype not in (np.float32, np.float64):
        raise ModelError(f"velocity has dtype {dtype}: convert it to float32 or float64")
    sources = _positions("source", source)
    _check_inside(model, "source", sources)
    _check_inside(model, "receiver", _positions("receiver", receivers))
    shape = tuple(np.shape(wavelet))
    if not shape or shape[0] != model.n_steps:
        raise ModelError(
            f"the wavelet has {shape[0] if shape else 0} samples and the model {model.n_steps} "
            "steps: give one sample per step, at multiples of dt"
        )
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != len(sources)):
        raise ModelError(
            f"the wavelet has shape {shape} for {len(sources)} sources: give (n_steps,) or "
            f"({model.n_steps}, {len(sources)})"
        )


def _positions(name: str, points: Any) -> np.ndarray:
    """As an array (n, 2); also from one pair."""
    array = np.asarray(points, np.float64)
    if array.ndim == 1 and array.size in (0, 2):
        array = array.reshape(-1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ModelError(
            f"{name} positions have shape {array.shape}: give pairs (x, z) in m, shape (n, 2)"
        )
    return array


def _check_inside(model: Acoustic, name: str, points: np.ndarray) -> None:
    extent = (np.array(model.shape) - 1) * model.spacing
    # A hundredth of a cell: positions are often computed in floating point.
    slack = 0.01 * model.spacing
    is_inside = np.all((points >= -slack) & (points <= extent + slack), axis=1)
    if not is_inside.all():
        n = int(np.argmin(is_inside))
        x, z = points[n]
        raise ModelError(
            f"{name} {n} at x = {x:.6g} m, z = {z:.6g} m lies outside of the model, which extends "
            f"from 0 to {extent[0]:.6g} m in x and from 0 to {extent[1]:.6g} m in z: move it, or "
            "enlarge the model"
        )


def _check_below_surface(name: str, points: np.ndarray) -> None:
    if np.any(points[:, 1] <= 0):
        n = int(np.argmax(points[:, 1] <= 0))
        raise ModelError(
            f"{name} {n} lies at z = {points[n, 1]:.6g} m, on the free surface, where pressure is "
            "zero: move it down"
        )


def check_velocity(velocity: np.ndarray) -> None:
    """Refuse what can be no velocity in m/s."""
    check_positive("velocity", velocity, "m/s")
    low, high = float(velocity.min()), float(velocity.max())
    if high < KM_PER_SECOND_BELOW:
        raise ModelError(f"velocities of {low:.4g} to {high:.4g} look like km/s: multiply by 1000")


def _check_time_step(model: Acoustic, velocity: np.ndarray) -> None:
    i, j = (int(k) for k in np.unravel_index(np.argmax(velocity), velocity.shape))
    reason = f"the velocity {velocity[i, j]:.6g} m/s at point ({i}, {j})"
    check_dt(model.dt, model.max_dt(velocity), reason)


def _check_resolution(model: Acoustic, velocity: np.ndarray, wavelet: np.ndarray) -> None:
    points, least = model.points_per_wavelength(velocity, wavelet), LEAST_POINTS[model.order]
    if points < least:
        raise ModelError(
            f"{points:.2f} points per wavelength at the frequency above which the wavelet's "
            f"spectrum stays below 1 % of its peak, for the lowest velocity of "
            f"{velocity.min():.6g} m/s: order {model.order} needs {least:g}; take a spacing of at "
            f"most {model.spacing * points / least:.4g} m, a lower frequency, or a higher order"
        )
