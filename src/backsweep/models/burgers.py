"""Viscous Burgers' equation in conservative form, in one or two dimensions, periodic.

    u_t + sum over axes of (u^2 / 2 - nu u_x)_x = 0

Explicit Euler in time (order 1). The flux of u^2 / 2 is Rusanov's (local Lax-Friedrichs): the mean
of both sides of a face, minus half the larger abs(u) times the jump (order 1 in space, no spurious
oscillations); that of viscosity is a central difference (order 2). The sum of u is conserved. abs
and maximum have kinks, at which derivatives are as docs/numpy.md says.

References
----------
LeVeque (2002), Finite Volume Methods for Hyperbolic Problems, Cambridge, section 12.5,
doi:10.1017/CBO9780511791253.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.errors import ModelError
from backsweep.models.checks import check_dt, check_finite, check_shape
from backsweep.runtime.checkpointing import Checkpointing


@dataclass(frozen=True)
class Burgers:
    """Velocity after a number of steps.

    Parameters
    ----------
    shape : tuple of int
        (n,) or (nx, ny) cells of a periodic domain.
    spacing : float [m]
    dt : float [s]
        At most `max_dt(initial, viscosity)`.
    n_steps : int

    Examples
    --------
    >>> import numpy as np
    >>> from backsweep.models import Burgers
    >>> model = Burgers(shape=(64,), spacing=1 / 64, dt=2e-3, n_steps=100)
    >>> wave = np.sin(2 * np.pi * np.arange(64) / 64)
    >>> model.check(wave, 0.01)
    >>> bool(abs(model.simulate(wave, 0.01)).max() < 1)
    True
    """

    shape: tuple[int, ...]
    spacing: float
    dt: float
    n_steps: int

    def simulate(
        self, initial: Any, viscosity: Any, checkpointing: Checkpointing | None = None
    ) -> Any:
        """The last velocity.

        Parameters
        ----------
        initial : ndarray, of the model's shape [m/s]
            Both arguments may be traced.
        viscosity : float [m^2/s]
            nu.
        checkpointing : Checkpointing, optional

        Returns
        -------
        velocity : ndarray, of the model's shape [m/s]

        Raises
        ------
        ModelError
            If the shape does not fit.
        """
        check_shape("initial", initial, self.shape)
        courant, stiffness = self.dt / self.spacing, viscosity / self.spacing

        def step(u: Any, _: Any) -> Any:
            u_next = u.copy()
            for axis in range(len(self.shape)):
                right = np.roll(u, -1, axis)
                flux = rusanov(u, right) - stiffness * (right - u)
                u_next -= courant * (flux - np.roll(flux, 1, axis))
            return u_next, None

        return scan(step, initial, length=self.n_steps, checkpointing=checkpointing)[0]

    def max_dt(self, initial: np.ndarray, viscosity: float) -> float:
        """Largest stable time step [s]: 1 / (d (max abs(u) / spacing + 2 nu / spacing^2)).

        d is the number of dimensions; the largest velocity never grows.
        """
        rate = np.max(np.abs(initial)) / self.spacing + 2 * viscosity / self.spacing**2
        return float(1 / (len(self.shape) * rate)) if rate else np.inf

    def check(self, initial: Any, viscosity: Any) -> None:
        """Refuse what cannot be simulated; call it outside of traced functions.

        Raises
        ------
        ModelError
            For a shape that does not fit, values that are not finite, a negative viscosity, an
            unstable dt.
        """
        check_shape("initial", initial, self.shape)
        check_finite("initial", np.asarray(initial))
        if not 0 <= viscosity < np.inf:
            raise ModelError(f"viscosity is {viscosity:.6g} m^2/s: it must be finite, 0 or more")
        limit = self.max_dt(initial, viscosity)
        check_dt(self.dt, limit, "the largest velocity and viscosity")


def rusanov(left: Any, right: Any) -> Any:
    """Flux through a face with the values `left` and `right` beside it."""
    speed = np.maximum(np.abs(left), np.abs(right))
    return 0.25 * (left**2 + right**2) - 0.5 * speed * (right - left)
