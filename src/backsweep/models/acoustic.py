"""Acoustic waves in two dimensions, with gradients with respect to velocity and wavelet.

    u_tt / c^2 - u_xx - u_zz = sum over sources of s(t) delta(x - x_s) delta(z - z_s)

for the pressure u in a medium of constant density: second order in time (leapfrog), order 2, 4, 6
or 8 in space. Waves leave through convolutional perfectly matched layers (`cpml`), or are reflected
by a free surface, u = 0 at z = 0. Sources and receivers lie anywhere (`points`). Arrays are (x, z),
z points down. The grid is the model with a frame of `n_absorb` points, in which the velocity of the
model's edge continues, and order / 2 ghost points around it that stay zero.

One step on a grid of n points with l points in layers reads and writes 2 n + 4 l numbers; a state
holds as many. Known to be suboptimal: narrow layers at the ends of the second axis vectorise badly.

References
----------
Dablain (1986), The application of high-order differencing to the scalar wave equation, Geophysics
51, 54-66, doi:10.1190/1.1442040. Absorbing layers and point sources: see `cpml` and `points`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.models import acoustic_checks
from backsweep.models.cpml import Damping, Layer, cut, quiet
from backsweep.models.points import Taps, find_taps
from backsweep.models.stencils import (
    bare,
    image_weights,
    largest_eigenvalue,
    second_derivative,
)
from backsweep.models.wavelets import highest_frequency
from backsweep.runtime.checkpointing import Checkpointing


@dataclass(frozen=True)
class Acoustic:
    """Pressure at receivers, from velocity, sources and a wavelet.

    Parameters
    ----------
    shape : tuple of int
        (nx, nz), points of the model, without the frame.
    spacing : float [m]
    dt : float [s]
        At most `max_dt(velocity)`.
    n_steps : int
    order : {8, 2, 4, 6}
        Of the differences in space.
    n_absorb : int
        Points of the frame on each side; at least 4.
    free_surface : bool
        Pressure is zero at z = 0; there is no frame above it.
    max_velocity : float [m/s]
        Fixes the damping in the frame. Velocities far above are damped too little, far below too
        abruptly: within a factor of about two either way it does not matter.
    frequency : float [Hz]
        Dominant frequency, for the frame as well: waves of far lower frequency are damped less.

    Examples
    --------
    >>> import numpy as np
    >>> from backsweep.models import Acoustic, ricker
    >>> model = Acoustic(shape=(60, 40), spacing=10.0, dt=1e-3, n_steps=300)
    >>> velocity, wavelet = np.full((60, 40), 2000.0), ricker(10.0, 1e-3, 300)
    >>> model.check(velocity, (50, 50), [(500, 50)], wavelet)
    >>> model.simulate(velocity, (50, 50), [(500, 50)], wavelet).shape
    (300, 1)
    """

    shape: tuple[int, int]
    spacing: float
    dt: float
    n_steps: int
    order: int = 8
    n_absorb: int = 20
    free_surface: bool = False
    max_velocity: float = 5000.0
    frequency: float = 10.0

    def simulate(
        self,
        velocity: Any,
        source: Any,
        receivers: Any,
        wavelet: Any,
        checkpointing: Checkpointing | None = None,
    ) -> Any:
        """Pressure at the receivers.

        Parameters
        ----------
        velocity : ndarray, shape (nx, nz), float32 or float64 [m/s]
            May be traced; its values are not checked here, see `check`.
        source : array_like, shape (2,) or (n_sources, 2) [m]
            Positions x, z from the model's first point, which need not be on the grid.
        receivers : array_like, shape (n_receivers, 2) [m]
        wavelet : ndarray, shape (n_steps,) or (n_steps, n_sources) [Pa]
            s(t) of each source, or of all of them; may be traced.
        checkpointing : Checkpointing, optional

        Returns
        -------
        pressure : ndarray, shape (n_steps, n_receivers), dtype of velocity [Pa]
            Row n at time n dt; sample n of the wavelet acts from then on, and row 0 is zero.

        Raises
        ------
        ModelError
            If shapes do not fit or a point lies outside of the model.
        """
        acoustic_checks.check_geometry(self, velocity, source, receivers, wavelet)
        carry, advance = self._stepping(velocity, source)
        taps = self._taps(receivers, velocity.dtype)

        def step(carry: Any, s: Any) -> Any:
            return advance(carry, s), taps.read(carry[0])

        return scan(step, carry, _samples(wavelet, velocity), checkpointing=checkpointing)[1]

    def illumination(self, velocity: Any, source: Any, wavelet: Any) -> Any:
        """Sum over time of the squared second difference in time of the pressure.

        Its inverse is a diagonal preconditioner for gradients with respect to velocity, which are
        correlations of the second difference with the adjoint field.

        Parameters
        ----------
        velocity, source, wavelet
            As for `simulate`.

        Returns
        -------
        illumination : ndarray, shape (nx, nz), dtype of velocity [Pa^2]

        Raises
        ------
        ModelError
            As for `simulate`.
        """
        acoustic_checks.check_geometry(self, velocity, source, (), wavelet)
        carry, advance = self._stepping(velocity, source)
        (i, j), (nx, nz) = self._origin, self.shape

        def step(carry: Any, s: Any) -> Any:
            total, fields = carry
            after = advance(fields, s)
            change = after[0] - 2 * fields[0] + fields[1]
            return (total + change[i : i + nx, j : j + nz] ** 2, after), None

        total = np.zeros(self.shape, velocity.dtype)
        return scan(step, (total, carry), _samples(wavelet, velocity))[0][0]

    def check(self, velocity: Any, source: Any, receivers: Any, wavelet: Any) -> None:
        """Refuse what cannot be simulated, in one sentence; call it outside of traced functions.

        Parameters
        ----------
        velocity, source, receivers, wavelet
            As for `simulate`, with their values.

        Raises
        ------
        ModelError
            For shapes and positions that do not fit, velocities that are not positive or look
            like km/s, a time step that is unstable, a grid too coarse for the wavelet (by
            `stencils.LEAST_POINTS` at `points_per_wavelength`), or a point on the free surface.
        """
        acoustic_checks.check(self, velocity, source, receivers, wavelet)

    def max_dt(self, velocity: np.ndarray) -> float:
        """Largest stable time step [s], set by the highest velocity.

        dt <= 2 spacing / (c sqrt(2 e)) with e the largest eigenvalue of minus the second
        difference: 0.61 spacing / c for order 4, 0.55 for order 8.
        """
        limit = 2 * self.spacing / np.sqrt(2 * largest_eigenvalue(self.order))
        return float(limit / np.max(velocity))

    def points_per_wavelength(self, velocity: np.ndarray, wavelet: np.ndarray) -> float:
        """Points per shortest wavelength, where the spectrum has fallen to 1 % of its peak."""
        highest = highest_frequency(np.asarray(wavelet), self.dt)
        shortest = float(np.min(velocity)) / highest if highest else np.inf
        return shortest / self.spacing

    @property
    def _origin(self) -> tuple[int, int]:
        """Indices of the model's first point in a field."""
        width = self.order // 2
        return self.n_absorb + width, (0 if self.free_surface else self.n_absorb) + width

    @property
    def _inner_shape(self) -> tuple[int, int]:
        """Of the grid without ghost points."""
        n_z_frames = 1 if self.free_surface else 2
        return self.shape[0] + 2 * self.n_absorb, self.shape[1] + n_z_frames * self.n_absorb

    def _taps(self, positions: Any, dtype: Any) -> Taps:
        return find_taps(positions, self.spacing, self._origin, self.free_surface, dtype)

    def _layers(self, dtype: Any) -> list[Layer]:
        damping = Damping(self.n_absorb, self.spacing, self.dt, self.max_velocity, self.frequency)
        sides = [(0, True), (0, False), *([] if self.free_surface else [(1, True)]), (1, False)]
        return [
            damping.layer(axis, 0 if low else self._inner_shape[axis] - damping.n, low, dtype)
            for axis, low in sides
        ]

    def _courant_squared(self, velocity: Any) -> Any:
        """(c dt / spacing)^2 on the grid without ghost points."""
        top = 0 if self.free_surface else self.n_absorb
        frame = ((self.n_absorb, self.n_absorb), (top, self.n_absorb))
        result = (np.pad(velocity, frame, mode="edge") * (self.dt / self.spacing)) ** 2
        if self.free_surface:
            result[:, 0] = 0.0
        return result

    def _stepping(self, velocity: Any, source: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
        """The carry at rest, and a function (carry, sample of the wavelet) -> next carry."""
        order, width, dtype = self.order, self.order // 2, velocity.dtype
        c2, taps = self._courant_squared(velocity), self._taps(source, dtype)
        layers = self._layers(dtype)
        strength = c2[taps.i - width, taps.j - width] * taps.weights
        images = image_weights(order).astype(dtype)

        def advance(carry: Any, s: Any) -> Any:
            u, u_before, psis, zetas = carry
            second = [second_derivative(bare(u, k, width), k, order) for k in (0, 1)]
            first = [_first_difference(bare(u, k, width), k, width) for k in (0, 1)]
            total = second[0] + second[1]
            if self.free_surface and width > 1:
                total[:, 1:width] += u[width:-width, width + 1 : 2 * width] @ images
            new_psis, new_zetas = [], []
            for layer, psi, zeta in zip(layers, psis, zetas, strict=True):
                psi, zeta, more = layer.advance(psi, zeta, first[layer.axis], second[layer.axis])
                cut(total, layer.axis, layer.start, layer.n)[...] += more
                new_psis.append(psi)
                new_zetas.append(zeta)
            u_after = 2 * u - u_before
            u_after[width:-width, width:-width] += c2 * total
            np.add.at(u_after, (taps.i, taps.j), strength * s[:, None])
            return u_after, u, tuple(new_psis), tuple(new_zetas)

        nx, nz = self._inner_shape
        rest = np.zeros((nx + 2 * width, nz + 2 * width), dtype)
        return (rest, rest, *quiet(layers, (nx, nz), dtype)), advance


def _first_difference(u: Any, axis: int, width: int) -> Any:
    """Between neighbours along an axis with ghost points, from the last ghost to the first."""
    n = u.shape[axis] - 2 * width + 1
    return cut(u, axis, width, n) - cut(u, axis, width - 1, n)


def _samples(wavelet: Any, velocity: Any) -> Any:
    """What the steps get: shape (n_steps, 1 or n_sources), dtype of velocity."""
    return wavelet.astype(velocity.dtype).reshape(wavelet.shape[0], -1)
