"""Shallow water on a rotating plane, in two dimensions: periodic in x, between walls in y.

    h_t + div(h (u, v)) = 0
    u_t - q h v = -B_x + nu lap(u)        q = (f + v_x - u_y) / h       f = coriolis + beta y
    v_t + q h u = -B_y + nu lap(v)        B = g (h + bottom) + (u^2 + v^2) / 2

Order 2 in space on Arakawa's C-grid, by the scheme of Sadourny that conserves energy: h in the
middle of cells, u in their eastern and v in their northern faces, q in their north-eastern corners.
Volume is conserved. Walls let no water through and do not hold it back (free slip). In time
Adams-Bashforth of order 2 with a shift `epsilon` (0.1 in the public benchmark of mpi4jax, whose
equations these are), after a first step of Euler's: order 1 with a small constant, or 2 without the
shift. Nothing keeps h positive, nothing resolves breaking waves: a viscosity must smooth what
becomes as narrow as a cell.

Arrays are (y, x), in rows of equal y. A step holds nothing but rolls along x and slices along y: it
may be cut into blocks along either.

References
----------
Sadourny (1975), The dynamics of finite-difference models of the shallow-water equations, Journal of
the Atmospheric Sciences 32, 680-689, doi:10.1175/1520-0469(1975)032<0680:TDOFDM>2.0.CO;2.
Haefner & Vicentini (2021), mpi4jax: Zero-copy MPI communication of JAX arrays, Journal of Open
Source Software 6, 3419, doi:10.21105/joss.03419.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.scans import scan
from backsweep.errors import ModelError
from backsweep.models.checks import check_dt, check_finite, check_positive, check_shape
from backsweep.models.heat import after, before
from backsweep.runtime.checkpointing import Checkpointing

State = tuple[Any, Any, Any]
"""Height, u and v, or what they change by per second."""

Carry = tuple[State, State]


@dataclass(frozen=True)
class ShallowWater:
    """Height and velocity after a number of steps.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) cells: walls at both ends of y (north), periodic along x (east).
    spacing : float [m]
    dt : float [s]
        At most `max_dt(height, u, v)`.
    n_steps : int
    gravity : float [m/s^2]
    coriolis : float [1/s]
        f at the southern wall.
    beta : float [1/(m s)]
        Derivative of f along y.
    viscosity : float [m^2/s]
        nu, lateral.
    epsilon : float
        The weights of a step are 3/2 + epsilon and -(1/2 + epsilon).

    Examples
    --------
    >>> import numpy as np
    >>> from backsweep.models import ShallowWater
    >>> model = ShallowWater(shape=(30, 40), spacing=5e3, dt=20.0, n_steps=100)
    >>> y, x = (np.mgrid[:30, :40] + 0.5) * model.spacing
    >>> height = 100 + np.exp(-((x - 1e5) ** 2 + (y - 7e4) ** 2) / 2e4**2)
    >>> model.check(height)
    >>> h, u, v = model.simulate(height)
    >>> bool(np.isclose(h.mean(), height.mean(), rtol=1e-14))
    True
    """

    shape: tuple[int, int]
    spacing: float
    dt: float
    n_steps: int
    gravity: float = 9.81
    coriolis: float = 1e-4
    beta: float = 0.0
    viscosity: float = 0.0
    epsilon: float = 0.1

    def simulate(
        self,
        height: Any,
        u: Any = 0.0,
        v: Any = 0.0,
        bottom: Any = 0.0,
        checkpointing: Checkpointing | None = None,
    ) -> State:
        """The last height and velocity.

        Parameters
        ----------
        height : ndarray, shape (ny, nx), float32 or float64 [m]
            Of the water above the bottom, first; all four arguments may be traced.
        u : ndarray, shape (ny, nx), or float [m/s]
            First eastward velocity, through the eastern face of each cell.
        v : ndarray, shape (ny, nx), or float [m/s]
            First northward velocity, through the northern face of each cell. The last row
            would lead through the wall: it does not matter, and is 0 in the result.
        bottom : ndarray, shape (ny, nx), or float [m]
            Elevation of the bottom above any level.
        checkpointing : Checkpointing, optional

        Returns
        -------
        height, u, v : ndarray, shape (ny, nx), dtype of height

        Raises
        ------
        ModelError
            If shapes do not fit.
        """
        check_shapes(self, height, u, v, bottom)
        carry, advance = stepping(self, height, u, v, bottom)
        xs = weights(self, height.dtype)

        def step(carry: Any, x: Any) -> Any:
            return advance(carry, x), None

        return scan(step, carry, xs, checkpointing=checkpointing)[0][0]

    def max_dt(self, height: np.ndarray, u: Any = 0.0, v: Any = 0.0) -> float:
        """Largest stable time step [s], for the fastest wave and the currents at the start.

        The shift epsilon of Adams-Bashforth lets frequencies up to y / dt be stable, with
        y = 2 sqrt(epsilon / (1 + epsilon)) / (1 + 2 epsilon): 0.50 for 0.1. The highest one on
        the grid is 2 sqrt(2 g h) / spacing + (abs(u) + abs(v)) / spacing + abs(f).
        """
        e, per_cell = self.epsilon, 1 / self.spacing
        stable = 2 * np.sqrt(e / (1 + e)) / (1 + 2 * e)
        f = (self.coriolis, self.coriolis + self.beta * self.shape[0] * self.spacing)
        rate = 2 * per_cell * np.sqrt(2 * self.gravity * np.max(height)) + np.max(np.abs(f))
        rate += per_cell * (np.max(np.abs(u)) + np.max(np.abs(v)))
        decay = 8 * self.viscosity * per_cell**2
        return float(stable / (rate + stable * (1 + e) * decay))

    def check(self, height: Any, u: Any = 0.0, v: Any = 0.0, bottom: Any = 0.0) -> None:
        """Refuse what cannot be simulated; call it outside of traced functions.

        Parameters
        ----------
        height, u, v, bottom
            As for `simulate`, with their values.

        Raises
        ------
        ModelError
            For shapes that do not fit, heights that are not positive, values that are not finite,
            an epsilon or a viscosity that make every dt unstable, an unstable dt.
        """
        check_shapes(self, height, u, v, bottom)
        check_positive("height", np.asarray(height), "m")
        for name, value in (("u", u), ("v", v), ("bottom", bottom)):
            check_finite(name, np.asarray(value))
        if not 0 < self.epsilon <= 0.5:
            raise ModelError(
                f"epsilon is {self.epsilon:.6g}: every dt lets waves grow, unless it is above 0, "
                "and damps them much above 0.1; take 0.01 to 0.1"
            )
        if not 0 <= self.viscosity < np.inf:
            raise ModelError(
                f"viscosity is {self.viscosity:.6g} m^2/s: it must be finite, 0 or more"
            )
        limit = self.max_dt(height, u, v)
        check_dt(self.dt, limit, "the largest height, velocity and viscosity")


def check_shapes(model: ShallowWater, height: Any, u: Any, v: Any, bottom: Any) -> None:
    """Refuse arrays of other shapes than the model's; all but the height may be one number."""
    check_shape("height", height, model.shape)
    for name, value in (("u", u), ("v", v), ("bottom", bottom)):
        if np.ndim(value):
            check_shape(name, value, model.shape)


def stepping(
    model: ShallowWater, height: Any, u: Any, v: Any, bottom: Any
) -> tuple[Carry, Callable[[Carry, Any], Carry]]:
    """The first carry, and a function (carry, weights of the step) -> next carry.

    The carry is (state, what it changed by per second in the step before).
    """
    dtype = height.dtype
    rest = np.zeros_like(height)
    inside = rest.copy()
    before(inside, 0)[...] += v if np.ndim(v) == 0 else before(v, 0)
    first = (height, (rest + u).astype(dtype), inside)
    tendencies = equations(model, bottom if np.ndim(bottom) == 0 else bottom.astype(dtype), dtype)

    def advance(carry: Carry, x: Any) -> Carry:
        state, old = carry
        new = tendencies(*state)
        a, b = x
        h, u, v = (y + (a * r + b * s) for y, r, s in zip(state, new, old, strict=True))
        return (h, u, v), new

    return (first, (rest, rest, rest)), advance


def weights(model: ShallowWater, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """What each step multiplies tendencies and those of the step before with [s]."""
    new = np.full(model.n_steps, (1.5 + model.epsilon) * model.dt, dtype)
    old = np.full(model.n_steps, -(0.5 + model.epsilon) * model.dt, dtype)
    new[:1], old[:1] = model.dt, 0.0
    return new, old


def equations(model: ShallowWater, bottom: Any, dtype: Any) -> Callable[[Any, Any, Any], State]:
    """A function (height, u, v) -> what they change by per second."""
    per_cell = 1 / model.spacing
    corners = np.arange(1, model.shape[0])[:, None] * model.spacing
    f = (model.coriolis + model.beta * corners).astype(dtype)

    def tendencies(h: Any, u: Any, v: Any) -> State:
        v = before(v, 0)  # through faces between cells
        pairs = before(h, 0) + after(h, 0)
        to_east = 0.5 * (h + east(h)) * u
        to_north = 0.5 * pairs * v
        vorticity = f + per_cell * (east(v) - v - (after(u, 0) - before(u, 0)))
        q = vorticity / (pairs + east(pairs))  # a quarter of it
        energy = model.gravity * (h + bottom) + 0.25 * (u**2 + west(u) ** 2)
        before(energy, 0)[...] += 0.25 * v**2
        after(energy, 0)[...] += 0.25 * v**2

        h_dot = per_cell * (west(to_east) - to_east)
        before(h_dot, 0)[...] -= per_cell * to_north
        after(h_dot, 0)[...] += per_cell * to_north
        u_dot = per_cell * (energy - east(energy))
        turned = q * (to_north + east(to_north))
        before(u_dot, 0)[...] += turned
        after(u_dot, 0)[...] += turned
        turned = q * (before(to_east, 0) + after(to_east, 0))
        v_dot = per_cell * (before(energy, 0) - after(energy, 0)) - (turned + west(turned))
        if model.viscosity:
            friction = model.viscosity * per_cell**2
            slope = friction * (after(u, 0) - before(u, 0))
            u_dot += friction * (east(u) - 2 * u + west(u))
            before(u_dot, 0)[...] += slope
            after(u_dot, 0)[...] -= slope
            v_dot += friction * (east(v) - 4 * v + west(v))
            before(v_dot, 0)[...] += friction * after(v, 0)
            after(v_dot, 0)[...] += friction * before(v, 0)
        result = np.zeros_like(h)
        before(result, 0)[...] = v_dot
        return h_dot, u_dot, result

    return tendencies


def east(a: Any) -> Any:
    """Of the next cell, face or corner along x."""
    return np.roll(a, -1, 1)


def west(a: Any) -> Any:
    """Of the one before along x."""
    return np.roll(a, 1, 1)
