"""Heat conduction with variable conductivity, in one or two dimensions.

    u_t = div(kappa grad u) + q

Explicit Euler in time (order 1), fluxes between neighbours in space (order 2): the flux between two
points is the mean of their conductivities times the difference of their temperatures, so that heat
is conserved exactly. Boundaries are insulated (no flux), or held at the initial temperature.

References
----------
LeVeque (2007), Finite Difference Methods for Ordinary and Partial Differential Equations, SIAM,
section 2.15, doi:10.1137/1.9780898717839.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.models.checks import check_dt, check_positive, check_shape
from backsweep.runtime.checkpointing import Checkpointing


@dataclass(frozen=True)
class Heat:
    """Temperature after a number of steps.

    Parameters
    ----------
    shape : tuple of int
        (n,) or (nx, ny).
    spacing : float [m]
    dt : float [s]
        At most `max_dt(conductivity)`.
    n_steps : int
    held : bool
        The outermost points keep their temperature; else the boundary is insulated.

    Examples
    --------
    >>> import numpy as np
    >>> from backsweep.models import Heat
    >>> model = Heat(shape=(50,), spacing=0.02, dt=1e-4, n_steps=100)
    >>> hot = np.where(np.arange(50) < 25, 1.0, 0.0)
    >>> model.check(np.ones(50), hot)
    >>> round(float(model.simulate(np.ones(50), hot).sum()), 9)
    25.0
    """

    shape: tuple[int, ...]
    spacing: float
    dt: float
    n_steps: int
    held: bool = False

    def simulate(
        self,
        conductivity: Any,
        initial: Any,
        source: Any = 0.0,
        checkpointing: Checkpointing | None = None,
    ) -> Any:
        """The last temperature.

        Parameters
        ----------
        conductivity : ndarray, of the model's shape [m^2/s]
            kappa; all three arguments may be traced.
        initial : ndarray, of the model's shape [K]
        source : ndarray, of the model's shape, or float [K/s]
        checkpointing : Checkpointing, optional

        Returns
        -------
        temperature : ndarray, of the model's shape [K]

        Raises
        ------
        ModelError
            If shapes do not fit.
        """
        check_shape("conductivity", conductivity, self.shape)
        check_shape("initial", initial, self.shape)
        fluxes = self.dt / self.spacing**2
        between = [
            0.5 * fluxes * (after(conductivity, axis) + before(conductivity, axis))
            for axis in range(len(self.shape))
        ]

        def step(u: Any, _: Any) -> Any:
            u_next = u + self.dt * source
            for axis, k in enumerate(between):
                flux = k * (after(u, axis) - before(u, axis))
                before(u_next, axis)[...] += flux
                after(u_next, axis)[...] -= flux
            if self.held:
                for axis in range(len(self.shape)):
                    for edge in (slice(None, 1), slice(-1, None)):
                        where = (slice(None),) * axis + (edge,)
                        u_next[where] = u[where]
            return u_next, None

        return scan(step, initial, length=self.n_steps, checkpointing=checkpointing)[0]

    def max_dt(self, conductivity: np.ndarray) -> float:
        """Largest stable time step [s]: spacing^2 / (2 d kappa) in d dimensions."""
        return float(self.spacing**2 / (2 * len(self.shape) * np.max(conductivity)))

    def check(self, conductivity: Any, initial: Any) -> None:
        """Refuse what cannot be simulated; call it outside of traced functions.

        Raises
        ------
        ModelError
            For shapes that do not fit, conductivities that are not positive, an unstable dt.
        """
        check_shape("conductivity", conductivity, self.shape)
        check_shape("initial", initial, self.shape)
        check_positive("conductivity", np.asarray(conductivity), "m^2/s")
        check_dt(self.dt, self.max_dt(conductivity), "the largest conductivity")


def before(u: Any, axis: int) -> Any:
    """All but the last entry along an axis: a view."""
    return u[(slice(None),) * axis + (slice(None, -1),)]


def after(u: Any, axis: int) -> Any:
    """All but the first entry along an axis: a view."""
    return u[(slice(None),) * axis + (slice(1, None),)]
