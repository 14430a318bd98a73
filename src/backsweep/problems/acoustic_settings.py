"""The [problem] table of `model = "acoustic"`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from backsweep.problems.files import ArrayFile
from backsweep.problems.tables import Count, Finite, NotNegative, Positive, Table

Points = Annotated[list[Finite], Field(min_length=1)]


class Range(Table):
    """Evenly spaced values."""

    first: Finite
    last: Finite
    number: Count


class Positions(Table):
    """Points at `x` and `z` [m]; one value stands for all."""

    x: Range | Points | Finite
    z: Range | Points | Finite

    def positions(self) -> np.ndarray:
        """Shape (n, 2) [m]."""
        x, z = np.broadcast_arrays(*(np.atleast_1d(_values(v)) for v in (self.x, self.z)))
        return np.stack([x, z], axis=1).astype(np.float64)

    @model_validator(mode="after")
    def _fits(self) -> Positions:
        sizes = {np.size(_values(v)) for v in (self.x, self.z)} - {1}
        if len(sizes) > 1:
            raise ValueError(f"x and z name {' and '.join(map(str, sorted(sizes)))} points")
        return self


def _values(value: Range | list[float] | float) -> Any:
    if isinstance(value, Range):
        return np.linspace(value.first, value.last, value.number)
    return value


class Wavelet(Table):
    """A Ricker wavelet of a peak frequency [Hz] and delay [s], or samples from a file."""

    ricker: Positive | None = None
    delay: Finite | None = None
    file: ArrayFile | None = None
    amplitude: Finite = 1.0

    def peak(self) -> float | None:
        """Time of the maximum [s], if it is known without reading a file."""
        if self.ricker is None:
            return None
        return 1.5 / self.ricker if self.delay is None else self.delay

    @model_validator(mode="after")
    def _one(self) -> Wavelet:
        if (self.ricker is None) == (self.file is None):
            raise ValueError("give either ricker = (peak frequency in Hz) or file = (samples)")
        return self


class Misfit(Table):
    """How data are compared."""

    kind: Literal["l2", "huber", "normalized_correlation"] = "l2"
    threshold: Positive | None = None

    def options(self) -> dict[str, float]:
        return {} if self.threshold is None else {"threshold": self.threshold}

    @model_validator(mode="after")
    def _fits(self) -> Misfit:
        if (self.kind == "huber") != (self.threshold is not None):
            raise ValueError("threshold (in units of the data's rms) belongs to kind = 'huber'")
        return self


class Made(Table):
    """A model that the code makes."""

    shape: tuple[Count, Count] = (220, 80)


class AcousticSettings(Table):
    """Everything that `AcousticProblem` needs; lengths in m, times in s, velocities in m/s."""

    start: ArrayFile | None = None
    true: ArrayFile | None = None
    observed: ArrayFile | None = None
    made: Made | None = None
    axes: Literal["xz", "zx"] = "xz"
    dtype: Literal["float32", "float64"] = "float32"
    spacing: Positive
    dt: Positive
    n_steps: Annotated[int, Field(ge=2)]
    order: Literal[2, 4, 6, 8] = 8
    n_absorb: Annotated[int, Field(ge=0)] = 20
    free_surface: bool = False
    max_velocity: Positive = 5000.0
    frequency: Positive = 10.0
    wavelet: Wavelet
    sources: Positions
    receivers: Positions
    misfit: Misfit = Misfit()
    weights: ArrayFile | None = None
    mute_offset: NotNegative = 0.0
    lowpass: Positive | None = None
    noise: NotNegative = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    fixed_depth: Finite = -1.0
    fixed_velocity: NotNegative = 0.0
    velocity_scale: Positive = 1000.0
    depth_power: NotNegative = 0.0

    @model_validator(mode="after")
    def _fits(self) -> AcousticSettings:
        if (self.made is None) == (self.start is None):
            raise ValueError("give either start = (a model file) or the table made")
        if self.made is not None and self.true is not None:
            raise ValueError("a made model is its own true one: leave out true")
        if self.true is None and self.made is None and self.observed is None:
            raise ValueError("give observed = (recorded data), or true = (a model to make them)")
        peak, end = self.wavelet.peak(), self.n_steps * self.dt
        if peak is not None and not 0 <= peak < end:
            raise ValueError(
                f"the wavelet has its maximum at {peak:.4g} s, outside of the run from 0 to "
                f"{end:.4g} s: change wavelet.delay, or n_steps"
            )
        return self


class StageSettings(Table):
    """What a stage may set besides its evaluations."""

    lowpass: Positive | None = None
