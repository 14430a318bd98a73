"""Joint design of an RF pulse and its gradient: excite a slice, leave the rest alone.

Unbounded variables become waveforms that obey the limits of the hardware at every instant, so
that any optimiser without constraints will do. The waveforms end refocused: the gradient's
rewinder belongs to the design, and the target is a magnetisation with a phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backsweep.errors import ModelError
from backsweep.models import bloch
from backsweep.models.bloch import GAMMA, Spins, simulate

Array = Any
#: Values, names of the dimensions, unit.
Field = tuple[np.ndarray, tuple[str, ...], str]

# What the start uses of each limit: at the limit itself variables would be infinite.
_MARGIN = 0.8
# A change of slew acts on all later gradients, and so on spins far more than one of RF does.
# Measured on the default, 10 evaluations of L-BFGS-B: misfit 2e-4 with 0.1, 2e-3 with 1.
_SLEW_UNIT = 0.1
#: Largest plausible value and, if it is larger, what it looks like.
_LARGEST = {
    "duration": (1.0, "s", "ms; multiply by 1e-3"),
    "dt": (1e-3, "s", "us; multiply by 1e-6"),
    "flip_angle": (180.0, "degrees", "more than an inversion; give at most 180"),
    "slice_thickness": (1.0, "m", "mm; multiply by 1e-3"),
    "transition": (1.0, "m", "mm; multiply by 1e-3"),
    "extent": (10.0, "m", "mm; multiply by 1e-3"),
    "max_rf": (1e-2, "T", "uT; multiply by 1e-6"),
    "max_gradient": (1.0, "T/m", "mT/m; multiply by 1e-3"),
    "max_slew": (1e5, "T/m/s", "T/m/s with another prefix; about 200 is usual"),
    "t1": (np.inf, "s", ""),
    "t2": (np.inf, "s", ""),
}


class PulseDesign:
    """A slice-selective pulse within hardware limits, as an unconstrained inverse problem.

    Parameters
    ----------
    duration, dt : float [s]
        Of everything, rewinder included, and of one interval.
    flip_angle : float [degree]
        Inside of the slice; at most 180.
    slice_thickness, transition : float [m]
        The slice, and the width of each of its two edges, in which any magnetisation will do.
    extent : float [m]
        The spins lie within +- extent / 2.
    n_spins, n_chunks : int
        Spins, and the number of groups in which they are simulated, one item each.
    max_rf : float [T]
    max_gradient : float [T/m]
    max_slew : float [T/m/s]
    offsets : sequence of float [Hz]
        Deviations of the static field at which the pulse shall work, all with the same weight.
    t1, t2 : float [s]

    Attributes
    ----------
    items : list of (float, int)
        Offset [Hz] and number of a chunk. The sum of the misfits of all items is the objective.
    units, dims : dict
        Of the variables.
    coords : dict of (ndarray, str)
        Coordinates of the dimensions, and their units.

    Raises
    ------
    ModelError
        On values out of range or probably in another unit, chunks that do not divide the spins,
        and limits with which no start of this duration exists.

    Notes
    -----
    The objective is the mean over spins and offsets of |M - M_target|^2, all three components, so
    that an inversion is told from nothing. Inside, M_target = (0, sin a, cos a) for the flip angle
    a; outside (0, 0, 1). Variables rho, theta, sigma, one each per interval [1]_:

    - B1 = 2/pi max_rf arctan(rho) exp(i theta);
    - slew = 2/pi max_slew arctan(sigma / 10), its running sum the gradient at the ends of the
      intervals. The factor 10 is ours: derivatives of a similar size;
    - also ours: the gradient is then clipped to +- min(max_gradient, max_slew times the time
      left). Neither bound is steeper than max_slew, so that the slew rate stays within its limit
      and the gradient is zero at the end. What is clipped has the derivative zero.

    Limits hold to rounding. One evaluation costs n_spins n_steps len(offsets) steps of the Bloch
    model and their adjoint.

    References
    ----------
    .. [1] T. Luo, D. C. Noll, J. A. Fessler, J.-F. Nielsen, Joint design of RF and gradient
       waveforms via auto-differentiation for 3D tailored excitation in MRI, IEEE Trans. Med.
       Imaging 40(12), 3305-3314 (2021), doi:10.1109/TMI.2021.3083104.
    """

    units = {"rf_amplitude": "1", "rf_phase": "rad", "slew": "1"}
    dims = {"rf_amplitude": ("time",), "rf_phase": ("time",), "slew": ("time",)}

    def __init__(
        self,
        *,
        duration: float = 3.2e-3,
        dt: float = 1e-5,
        flip_angle: float = 90.0,
        slice_thickness: float = 5e-3,
        transition: float = 1.5e-3,
        extent: float = 0.16,
        n_spins: int = 800,
        n_chunks: int = 4,
        max_rf: float = 20e-6,
        max_gradient: float = 40e-3,
        max_slew: float = 150.0,
        offsets: Sequence[float] = (0.0,),
        t1: float = np.inf,
        t2: float = np.inf,
    ) -> None:
        self.max_rf = _positive("max_rf", max_rf)
        self.max_gradient = _positive("max_gradient", max_gradient)
        self.max_slew = _positive("max_slew", max_slew)
        self.flip_angle = np.radians(_positive("flip_angle", flip_angle))
        self.slice_thickness = _positive("slice_thickness", slice_thickness)
        self.transition = _positive("transition", transition)
        self.dt, self.t1, self.t2 = _positive("dt", dt), _positive("t1", t1), _positive("t2", t2)
        self.n_steps = round(_positive("duration", duration) / self.dt)
        self._check_slice(_positive("extent", extent))
        if self.t2 > 2 * self.t1:
            raise ModelError(f"t2={t2:g} s exceeds twice t1={t1:g} s, which no spin does: lower t2")
        self.n_chunks = n_chunks
        self.offsets = _check_offsets(offsets)
        _check_chunks(n_spins, n_chunks)
        z = (np.arange(n_spins) + 0.5) / n_spins * extent - extent / 2
        depth = 0.5 * self.slice_thickness - np.abs(z)  # below the surface of the slice
        self.weight = (np.abs(depth) >= 0.5 * self.transition).astype(float)
        self.target_xy = np.where(depth > 0, 1j * np.sin(self.flip_angle), 0)
        self.target_z = np.where(depth > 0, np.cos(self.flip_angle), 1)
        if not np.any(self.weight * (depth > 0)):
            raise ModelError(
                f"n_spins={n_spins} over extent={extent:g} m leaves none within the slice: give "
                f"more than {extent / (self.slice_thickness - self.transition):.0f}"
            )
        self.items = [(f, k) for f in self.offsets for k in range(n_chunks)]
        time = self.dt * np.arange(self.n_steps + 1)
        # At the inner ends: the largest gradient from which zero is reached in the time left.
        self._bound = np.minimum(self.max_gradient, self.max_slew * (time[-1] - time[1:-1]))
        self._start_gradient = self._plan_gradient()
        self.coords = {
            "time": (0.5 * (time[1:] + time[:-1]), "s"),
            "edge": (time, "s"),
            "position": (z, "m"),
            "offset": (np.array(self.offsets), "Hz"),
        }

    def start(self) -> dict[str, np.ndarray]:
        """A Hamming-windowed sinc on a constant gradient with ramps and a rewinder.

        Returns
        -------
        parameters : dict of ndarray, shape (n_steps,)
            The pulse is right for small flip angles only, and clipped to 0.8 max_rf.
        """
        gradient, first, n_plateau = self._start_gradient
        t = (np.arange(n_plateau) + 0.5) / n_plateau - 0.5
        shape = np.sinc(self._time_bandwidth * t) * (0.54 + 0.46 * np.cos(2 * np.pi * t))
        amplitude = np.zeros(self.n_steps)
        amplitude[first : first + n_plateau] = (
            self.flip_angle / (GAMMA * self.dt * shape.sum()) * shape
        )
        amplitude = (amplitude / self.max_rf).clip(-_MARGIN, _MARGIN)
        slew = np.diff(gradient) / self.dt / self.max_slew
        return {
            "rf_amplitude": np.tan(np.pi / 2 * amplitude),
            "rf_phase": np.zeros(self.n_steps),
            "slew": np.tan(np.pi / 2 * slew) / _SLEW_UNIT,
        }

    def waveforms(self, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
        """RF [T] of each interval, complex, and gradient [T/m] at the n_steps + 1 ends of all."""
        amplitude = 2 / np.pi * self.max_rf * np.arctan(parameters["rf_amplitude"])
        phase = parameters["rf_phase"]
        rf = amplitude * np.cos(phase) + 1j * (amplitude * np.sin(phase))
        slew = 2 / np.pi * self.max_slew * np.arctan(_SLEW_UNIT * parameters["slew"])
        free = np.cumsum(self.dt * slew)[:-1]
        inner = np.maximum(np.minimum(free, self._bound), -self._bound)
        return rf, np.concatenate([np.zeros(1), inner, np.zeros(1)])

    def misfit(self, parameters: Mapping[str, Array], item: tuple[float, int]) -> Array:
        """Share of an item in the mean of |M - M_target|^2.

        Parameters
        ----------
        parameters : dict of ndarray, shape (n_steps,)
            As from `start`; may be traced.
        item : (float, int)
            One of `items`.

        Returns
        -------
        misfit : float
        """
        offset, chunk = item
        part = slice(chunk, None, self.n_chunks)
        m_xy, m_z = self._final(parameters, self.coords["position"][0][part], offset)
        error_xy = np.abs(m_xy - self.target_xy[part]) ** 2
        error_z = (m_z - self.target_z[part]) ** 2
        scale = 1 / (np.sum(self.weight) * len(self.offsets))
        return scale * np.sum(self.weight[part] * (error_xy + error_z))

    def fields(self, parameters: Mapping[str, np.ndarray]) -> dict[str, Field]:
        """Waveforms and profiles of a design.

        Returns
        -------
        fields : dict of (ndarray, tuple of str, str)
            Values, dimensions (see `coords`) and unit.
        """
        rf, gradient = self.waveforms(parameters)
        z = self.coords["position"][0]
        final = [self._final(parameters, z, offset) for offset in self.offsets]
        return {
            "rf": (rf, ("time",), "T"),
            "gradient": (gradient, ("edge",), "T/m"),
            "slew_rate": (np.diff(gradient) / self.dt, ("time",), "T/m/s"),
            "profile": (np.stack([m for m, _ in final]), ("offset", "position"), "1"),
            "profile_z": (np.stack([m for _, m in final]), ("offset", "position"), "1"),
        }

    def targets(self) -> dict[str, Field]:
        """What the profiles should be; not a number where any value will do."""
        is_free, any_value = self.weight == 0, complex(np.nan, np.nan)
        dims, n = ("offset", "position"), (len(self.offsets), 1)
        return {
            "profile": (np.tile(np.where(is_free, any_value, self.target_xy), n), dims, "1"),
            "profile_z": (np.tile(np.where(is_free, np.nan, self.target_z), n), dims, "1"),
        }

    @property
    def _time_bandwidth(self) -> float:
        # An edge of a windowed sinc is about two lobes' inverse wide.
        return 2 * self.slice_thickness / self.transition

    def _final(self, parameters: Mapping[str, Array], z: np.ndarray, offset: float) -> Array:
        rf, edges = self.waveforms(parameters)
        mean = 0.5 * (edges[1:] + edges[:-1])
        zero = np.zeros_like(mean)
        position = np.stack([np.zeros_like(z), np.zeros_like(z), z], axis=1)
        spins = Spins(position, t1=self.t1, t2=self.t2, off_resonance=2 * np.pi * offset)
        durations = np.full(self.n_steps, self.dt)
        waveforms = bloch.Sequence(durations, rf, np.stack([zero, zero, mean], axis=1))
        return simulate(spins, waveforms)[0]

    def _plan_gradient(self) -> tuple[np.ndarray, int, int]:
        """Gradient at the ends of intervals, first interval and length of its plateau.

        The longest plateau after which the rewinder, three equally long pieces, is within limits.
        """
        per_step = _MARGIN * self.max_slew * self.dt
        for n_plateau in range(self.n_steps, 0, -1):
            bandwidth = self._time_bandwidth / (n_plateau * self.dt)  # Hz
            level = 2 * np.pi * bandwidth / (GAMMA * self.slice_thickness)
            n_ramp = int(np.ceil(level / per_step))
            n_piece, n_spare = divmod(self.n_steps - n_plateau - n_ramp, 3)
            if n_piece < 1:
                continue
            n_flat = n_piece + n_spare
            # The area after the middle of the pulse is zero.
            rewind = level * (n_plateau + n_piece) / (2 * (n_piece + n_flat))
            fits = level + rewind <= n_piece * per_step and rewind <= _MARGIN * self.max_gradient
            if fits and level <= _MARGIN * self.max_gradient:
                lengths = np.cumsum([0, n_ramp, n_plateau, n_piece, n_flat, n_piece])
                corners = [0, level, level, -rewind, -rewind, 0]
                return np.interp(np.arange(self.n_steps + 1), lengths, corners), n_ramp, n_plateau
        raise ModelError(
            f"no pulse of {self.n_steps} intervals of {self.dt:g} s selects a slice of "
            f"{self.slice_thickness:g} m within max_gradient={self.max_gradient:g} T/m and "
            f"max_slew={self.max_slew:g} T/m/s: give it more time or a wider transition"
        )

    def _check_slice(self, extent: float) -> None:
        if self.n_steps < 10:
            raise ModelError(f"duration is {self.n_steps} times dt: give at least 10 intervals")
        if not self.transition < self.slice_thickness:
            raise ModelError(
                f"transition={self.transition:g} m is not less than "
                f"slice_thickness={self.slice_thickness:g} m: nothing of the slice remains"
            )
        if not self.slice_thickness + self.transition < extent:
            raise ModelError(
                f"extent={extent:g} m leaves nothing beside the slice: give more than "
                f"{self.slice_thickness + self.transition:g} m"
            )


def _positive(name: str, value: Any) -> float:
    largest, unit, looks_like = _LARGEST[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ModelError(f"{name}={value!r}: give a positive number [{unit}]")
    if value > largest or (value == np.inf and name not in ("t1", "t2")):
        raise ModelError(f"{name}={value:g} {unit} looks like {looks_like}")
    return float(value)


def _check_offsets(offsets: Sequence[float]) -> tuple[float, ...]:
    try:
        values = np.asarray(offsets, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not values.size or not np.all(np.abs(values) < 1e5):
        raise ModelError(f"offsets={offsets!r}: give a list of frequencies below 1e5 Hz")
    return tuple(float(v) for v in values)


def _check_chunks(n_spins: int, n_chunks: int) -> None:
    if not (isinstance(n_spins, int) and isinstance(n_chunks, int) and n_chunks >= 1):
        raise ModelError(f"n_spins={n_spins!r}, n_chunks={n_chunks!r}: give positive integers")
    if n_spins < 2 * n_chunks or n_spins % n_chunks:
        raise ModelError(f"n_spins={n_spins} is no multiple of n_chunks={n_chunks}, twice or more")
