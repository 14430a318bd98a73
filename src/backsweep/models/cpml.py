"""Convolutional perfectly matched layers for wave equations of second order in time.

In a layer, d/dx becomes (1/s) d/dx with s = 1 + d / (alpha + i omega). In time, with b =
exp(-(d + alpha) dt) and a = d (b - 1) / (d + alpha), the second derivative becomes

    u_xx + psi_x + zeta,    psi <- b psi + a u_x,    zeta <- b zeta + a (u_xx + psi_x)

(Pasalic & McGarry 2010). psi lives between grid points: u_x and psi_x are differences of two
neighbours, whatever the order of u_xx. So no memory variable is needed outside of the layer, and
the discrete operator keeps the symmetry of the continuous one: swapping source and receiver changes
nothing but rounding. d grows with the square of the depth, alpha falls from pi * frequency to 0.

Memory: 2 values per point of a layer. The differences of psi are of second order only, which
matters inside of the layer alone: 20 points reflect less than 1e-3 at normal incidence.

References
----------
Pasalic & McGarry (2010), Convolutional perfectly matched layer for isotropic and anisotropic
acoustic wave equations, SEG Technical Program, 2925-2929, doi:10.1190/1.3513453.
Komatitsch & Martin (2007), An unsplit convolutional perfectly matched layer improved at grazing
incidence for the seismic wave equation, Geophysics 72, SM155-SM167, doi:10.1190/1.2757586.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REFLECTION = 1e-4
"""Of the continuous layer at normal incidence; fixes d."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One side of the frame: `n` points from `start` along `axis`, and their coefficients.

    a and b hold at grid points, a_half and b_half at the n + 1 points between and beside them.
    """

    axis: int
    start: int
    n: int
    a: np.ndarray
    b: np.ndarray
    a_half: np.ndarray
    b_half: np.ndarray

    def advance(self, psi: Any, zeta: Any, first: Any, second: Any) -> tuple[Any, Any, Any]:
        """psi, zeta, and what is to be added to the second derivative here.

        `first` and `second` are the derivatives of the whole field along the axis; the i-th entry
        of `first` lies half a point before the i-th point.
        """
        psi = self.b_half * psi + self.a_half * cut(first, self.axis, self.start, self.n + 1)
        psi_x = cut(psi, self.axis, 1, self.n) - cut(psi, self.axis, 0, self.n)
        zeta = self.b * zeta + self.a * (cut(second, self.axis, self.start, self.n) + psi_x)
        return psi, zeta, psi_x + zeta


def cut(u: Any, axis: int, start: int, n: int) -> Any:
    """n entries of a 2D array along an axis: a view."""
    return u[start : start + n] if axis == 0 else u[:, start : start + n]


@dataclass(frozen=True, slots=True)
class Damping:
    """What fixes the coefficients of all layers.

    Attributes
    ----------
    n : int
        Points of a layer.
    spacing, dt : float [m, s]
    max_velocity : float [m/s]
    frequency : float [Hz]
    """

    n: int
    spacing: float
    dt: float
    max_velocity: float
    frequency: float

    def coefficients(self, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a and b at depths from 0 (and below) to 1."""
        thickness = self.n * self.spacing
        d_max = -1.5 * self.max_velocity * np.log(REFLECTION) / thickness
        d = d_max * np.clip(depth, 0, None) ** 2
        alpha = np.pi * self.frequency * np.clip(1 - depth, 0, 1)
        b = np.exp(-(d + alpha) * self.dt)
        a = np.where(depth > 0, d * (b - 1) / (d + alpha), 0.0)
        return a, b

    def layer(self, axis: int, start: int, is_low: bool, dtype: Any) -> Layer:
        """The layer whose first point is `start`, at the low or the high end of an axis."""
        # It begins half a point outside of the model: the last half point has depth 0.
        points = (self.n - 0.5 - np.arange(self.n)) / self.n
        halves = (self.n - np.arange(self.n + 1)) / self.n
        arrays = [*self.coefficients(points), *self.coefficients(halves)]
        if not is_low:
            arrays = [v[::-1] for v in arrays]
        shape = (-1, 1) if axis == 0 else (1, -1)
        return Layer(axis, start, self.n, *(v.reshape(shape).astype(dtype) for v in arrays))


def quiet(layers: list[Layer], shape: tuple[int, int], dtype: Any) -> tuple[Any, Any]:
    """psi and zeta of all layers at rest, in a field of a shape."""

    def zeros(layer: Layer, n: int) -> np.ndarray:
        return np.zeros((n, shape[1]) if layer.axis == 0 else (shape[0], n), dtype)

    return (
        tuple(zeros(layer, layer.n + 1) for layer in layers),
        tuple(zeros(layer, layer.n) for layer in layers),
    )
