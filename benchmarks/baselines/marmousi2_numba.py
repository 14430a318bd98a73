"""Misfit and gradient of several shots in a velocity model, with the hand-written kernels.

What the kernels do not know, by hand as well: the frame around the model, the squared velocity,
the sum over shots, and all of it backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from benchmarks.baselines.acoustic_numba import AcousticNumba


class MarmousiNumba:
    """`value_and_grad(velocity)` over all shots; `record(velocity, shot)` makes their data.

    sigma, shape (n_z, n_x), is the sponge on the model and its frame of `frame` points. Sources
    and receivers are rows and columns in points of the model; all shots share receivers and
    wavelet. The stored Laplacians of one shot are kept at a time.
    """

    def __init__(
        self,
        sigma: np.ndarray,
        frame: int,
        sources: Sequence[tuple[int, int]],
        receivers: tuple[np.ndarray, np.ndarray],
        wavelet: np.ndarray,
        courant: float,
    ) -> None:
        self.frame = frame
        self.courant = courant  # dt / spacing
        self.sources = [(z + frame, x + frame) for z, x in sources]
        problem = SimpleNamespace(
            n_z=sigma.shape[0],
            n_x=sigma.shape[1],
            n_steps=wavelet.size,
            sigma=sigma,
            source=self.sources[0],
            receivers=(receivers[0] + frame, receivers[1] + frame),
            wavelet=wavelet,
        )
        quiet = np.zeros((wavelet.size, receivers[0].size), np.float32)
        self.program = AcousticNumba(problem, quiet)
        self.observed: list[np.ndarray] = [quiet] * len(sources)

    def _c2(self, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Velocity on model and frame, and its square in grid units."""
        padded = np.pad(velocity, self.frame, mode="edge")
        return padded, np.square(padded * np.float32(self.courant))

    def observe(self, velocity: np.ndarray) -> None:
        """Take the traces of a model as the observed ones."""
        _, c2 = self._c2(velocity)
        for shot, source in enumerate(self.sources):
            self.program.set_shot(source, self.observed[shot])
            self.observed[shot] = self.program.forward(c2).copy()

    def value_and_grad(self, velocity: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit of all shots and its gradient with respect to the velocity."""
        padded, c2 = self._c2(velocity)
        total, gradient = 0.0, np.zeros_like(c2)
        for source, observed in zip(self.sources, self.observed, strict=True):
            self.program.set_shot(source, observed)
            value, part = self.program.value_and_grad(c2)
            total += value
            gradient += part
        gradient *= np.float32(2 * self.courant**2) * padded
        return total, self._fold(gradient)

    def _fold(self, padded: np.ndarray) -> np.ndarray:
        """The transpose of padding with the edge."""
        f = self.frame
        rows = padded[f:-f].copy()
        rows[0] += padded[:f].sum(axis=0)
        rows[-1] += padded[-f:].sum(axis=0)
        folded = rows[:, f:-f].copy()
        folded[:, 0] += rows[:, :f].sum(axis=1)
        folded[:, -1] += rows[:, -f:].sum(axis=1)
        return folded
