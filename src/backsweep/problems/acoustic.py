"""Full-waveform inversion of pressure records for the velocity: `model = "acoustic"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import scipy  # loads scipy.signal at its first use: half a second

from backsweep.errors import ModelError
from backsweep.inverse.misfits import MISFITS
from backsweep.models.acoustic import Acoustic
from backsweep.problems.acoustic_files import make_wavelet, read_models, read_records, read_weights
from backsweep.problems.acoustic_settings import AcousticSettings, StageSettings

Model = Mapping[str, Any]


@final
class AcousticProblem:
    """Velocity from the pressure of shots; an item is the number of a shot.

    Parameters
    ----------
    settings : AcousticSettings

    Raises
    ------
    ModelError
        If the simulation cannot run with these settings.
    RunFileError
        If files cannot be read or do not fit.

    Notes
    -----
    A low-pass is a causal Butterworth filter of wavelet and data. The simulation is linear in the
    wavelet, so that filtered data are exactly those of the filtered wavelet.
    """

    dims = {"velocity": ("x", "z")}
    units = {"velocity": "m/s"}

    def __init__(self, settings: AcousticSettings) -> None:
        s = self.settings = settings
        self._true, self._start = read_models(s)
        self.simulation = Acoustic(
            shape=(self._start.shape[0], self._start.shape[1]),
            spacing=s.spacing,
            dt=s.dt,
            n_steps=s.n_steps,
            order=s.order,
            n_absorb=s.n_absorb,
            free_surface=s.free_surface,
            max_velocity=s.max_velocity,
            frequency=s.wavelet.ricker or s.frequency,
        )
        self.sources = s.sources.positions()
        self.receivers = s.receivers.positions()
        self.items = range(len(self.sources))
        self._unfiltered = make_wavelet(s)
        self.wavelet = self._filtered(self._unfiltered)
        self.compare_data = MISFITS[s.misfit.kind](**s.misfit.options())
        self._given_weights = read_weights(s, (len(self.items), s.n_steps, len(self.receivers)))
        self._observed: dict[int, np.ndarray] = {}
        self._check_settings()

    @classmethod
    def from_table(cls, table: Mapping[str, Any], folders: Sequence[Path]) -> Self:
        """From the [problem] table of a run file; files are looked for in the folders."""
        return cls(AcousticSettings.read(table, "problem", folders))

    # ---------------------------------------------------------------- what the inversion needs

    def start(self) -> dict[str, np.ndarray]:
        return {"velocity": self._start}

    def true(self) -> dict[str, np.ndarray]:
        return {} if self._true is None else {"velocity": self._true}

    def misfit(self, parameters: Model, item: int) -> Any:
        return self.compare(self.simulate(parameters, item), item)

    def simulate(self, parameters: Model, item: int) -> Any:
        """Pressure, shape (n_steps, n_receivers)."""
        return self.simulation.simulate(
            parameters["velocity"], self.sources[item], self.receivers, self.wavelet
        )

    def compare(self, data: Any, item: int) -> Any:
        return self.compare_data(data, self.observed(item), self._weights(item))

    def illumination(self, parameters: Model, item: int) -> dict[str, np.ndarray]:
        velocity = parameters["velocity"]
        return {
            "velocity": self.simulation.illumination(velocity, self.sources[item], self.wavelet)
        }

    def check(self, parameters: Model) -> None:
        self._check_velocity(np.asarray(parameters["velocity"]))
        if self._true is not None and not self.settings.observed:
            try:
                self._check_velocity(self._true)
            except ModelError as error:
                raise ModelError(f"the true model: {error}") from error

    def _check_velocity(self, velocity: np.ndarray) -> None:
        for number, source in enumerate(self.sources):
            try:
                self.simulation.check(velocity, source, self.receivers, self.wavelet)
            except ModelError as error:
                # The first source stands for all that does not depend on the source.
                raise error if number == 0 else ModelError(f"shot {number}: {error}") from error

    def _check_settings(self) -> None:
        """What would leave nothing to compare or to seek."""
        s = self.settings
        if not np.any(self.wavelet):
            raise ModelError("the wavelet is zero throughout: nothing would move")
        weights = [self._weights(item) for item in self.items]
        if all(w is not None and not np.any(w) for w in weights):
            given = "weights" if s.weights else f"mute_offset = {s.mute_offset:g} m"
            raise ModelError(f"{given}: no receiver of any shot is left, nothing to compare")
        if not np.any(self.masks["velocity"]):
            raise ModelError(
                f"fixed_depth = {s.fixed_depth:g} m and fixed_velocity = {s.fixed_velocity:g} m/s "
                "leave no point at which velocity is sought: lower them"
            )

    def at_stage(self, **settings: Any) -> AcousticProblem:
        """The problem with a stage's settings: `lowpass`, a frequency [Hz]."""
        stage = StageSettings.read(settings, "stages")
        return type(self)(self.settings.model_copy(update=stage.model_dump()))

    # ---------------------------------------------------------------- names and units

    @property
    def coords(self) -> dict[str, tuple[np.ndarray, str]]:
        nx, nz = self._start.shape
        s = self.settings
        return {
            "x": (np.arange(nx) * s.spacing, "m"),
            "z": (np.arange(nz) * s.spacing, "m"),
            "time": (np.arange(s.n_steps) * s.dt, "s"),
        }

    data_dims = ("time", "receiver")
    data_unit = "Pa"

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Where velocity is sought."""
        s = self.settings
        z = np.arange(self._start.shape[1]) * s.spacing
        is_sought = np.broadcast_to(z > s.fixed_depth, self._start.shape)
        return {"velocity": is_sought & (self._start > s.fixed_velocity)}

    @property
    def scales(self) -> dict[str, Any]:
        """Larger with the depth below what is fixed, since shallow points move the data more."""
        s, mask = self.settings, self.masks["velocity"]
        depth = np.maximum(np.cumsum(mask, axis=1), 1.0) ** s.depth_power
        return {"velocity": s.velocity_scale * depth / depth[mask].mean()}

    # ---------------------------------------------------------------- data

    def prepare(self, items: Sequence[int]) -> None:
        """Read or make what was recorded of these shots."""
        recorded = None
        if self.settings.observed:
            shape = (len(self.sources), self.settings.n_steps, len(self.receivers))
            recorded = read_records(self.settings.observed, shape, items)
        for item in items:
            data = self._made(item) if recorded is None else recorded[item]
            # A copy: a view would keep the records of all shots.
            self._observed[item] = np.array(self._filtered(data), self._start.dtype)

    def observed(self, item: int) -> np.ndarray:
        """Pressure that was recorded, shape (n_steps, n_receivers).

        Raises
        ------
        ModelError
            Before `prepare`.
        """
        if item not in self._observed:
            raise ModelError(f"the data of shot {item} are not there: call prepare([{item}]) first")
        return self._observed[item]

    def _made(self, item: int) -> np.ndarray:
        """Data of the true model before any filter, with noise if asked for."""
        data = np.asarray(
            self.simulation.simulate(
                self._true, self.sources[item], self.receivers, self._unfiltered
            )
        )
        if self.settings.noise:
            rng = np.random.default_rng((self.settings.seed, item))
            rms = np.sqrt(np.mean(np.square(data, dtype=np.float64)))
            data = data + self.settings.noise * rms * rng.standard_normal(data.shape)
        return data

    def _weights(self, item: int) -> np.ndarray | None:
        """Of the data, (n_steps, n_receivers) or broadcastable to it; None for 1 everywhere."""
        s, weights = self.settings, self._given_weights
        if weights is not None and weights.ndim == 3:
            weights = weights[item]
        if s.mute_offset > 0:
            offset = np.abs(self.receivers[:, 0] - self.sources[item][0])
            is_used = (offset >= s.mute_offset).astype(self._start.dtype)
            weights = is_used if weights is None else weights * is_used
        return weights

    def _filtered(self, data: np.ndarray) -> np.ndarray:
        """Low-passed along the time."""
        s = self.settings
        if s.lowpass is None:
            return data
        if not 0 < s.lowpass < 0.5 / s.dt:
            raise ModelError(
                f"lowpass = {s.lowpass} Hz must lie between 0 and the Nyquist frequency "
                f"{0.5 / s.dt:.4g} Hz"
            )
        sos = scipy.signal.butter(4, s.lowpass, fs=1 / s.dt, output="sos")
        return np.asarray(scipy.signal.sosfilt(sos, data, axis=0))
