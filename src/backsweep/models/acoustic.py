"""Acoustic waves in two dimensions, with gradients with respect to velocity and wavelet.

    u_tt / c^2 - u_xx - u_zz = sum over sources of s(t) delta(x - x_s) delta(z - z_s)

for the pressure u in a medium of constant density: second order in time (leapfrog), order 2, 4, 6
or 8 in space. Waves leave through convolutional perfectly matched layers (`cpml`), or are reflected
by a free surface, u = 0 at z = 0. Sources and receivers lie anywhere (`points`). Arrays are (x, z),
z points down. The grid is the model with a frame of `n_absorb` points, in which the velocity of the
model's edge continues, and order / 2 ghost points around it that stay zero.

On a grid of n points with l points in layers a state holds 2 n + 2 l numbers. Known to be
suboptimal: narrow layers at the ends of the second axis vectorise badly.

References
----------
Dablain (1986), The application of high-order differencing to the scalar wave equation, Geophysics
51, 54-66, doi:10.1190/1.1442040. Absorbing layers and point sources: see `cpml` and `points`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.models import acoustic_checks
from backsweep.models.acoustic_step import origin, samples, stepping, taps_of
from backsweep.models.stencils import largest_eigenvalue
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
        carry, advance = stepping(self, velocity, source)
        taps = taps_of(self, receivers, velocity.dtype)

        def step(carry: Any, s: Any) -> Any:
            return advance(carry, s), taps.read(carry[0])

        return scan(step, carry, samples(wavelet, velocity), checkpointing=checkpointing)[1]

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
        carry, advance = stepping(self, velocity, source)
        (i, j), (nx, nz) = origin(self), self.shape

        def step(carry: Any, s: Any) -> Any:
            total, fields = carry
            after = advance(fields, s)
            change = after[0] - 2 * fields[0] + fields[1]
            return (total + change[i : i + nx, j : j + nz] ** 2, after), None

        total = np.zeros(self.shape, velocity.dtype)
        return scan(step, (total, carry), samples(wavelet, velocity))[0][0]

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
