"""The work that every contestant does: one definition for backsweep, NumPy, JAX and the rest.

Arrays are made by formula or from a fixed seed, so that all contestants, in whatever process, see
the same numbers. A step that JAX can run as well takes the array module as its first argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

Array = Any

#: Central 8th-order coefficients of the second derivative, offsets 0 to 4.
LAPLACIAN = (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560)
RADIUS = len(LAPLACIAN) - 1


def laplacian(u: Array) -> Array:
    """8th-order Laplacian of a 2D field, spacing 1, without the RADIUS outer points."""
    n_z, n_x = u.shape
    total = 2 * LAPLACIAN[0] * u[4:-4, 4:-4]
    for k in range(1, RADIUS + 1):
        total = total + LAPLACIAN[k] * (
            u[4 - k : n_z - 4 - k, 4:-4]
            + u[4 + k : n_z - 4 + k, 4:-4]
            + u[4:-4, 4 - k : n_x - 4 - k]
            + u[4:-4, 4 + k : n_x - 4 + k]
        )
    return total


@dataclass(frozen=True)
class Acoustic:
    """Constant-density acoustics, second order in time, 8th in space, one source.

    The carry is (u, u_prev), float32. The sponge damps the update within `sponge_width` points of
    the left, right and lower edge. The 4 outer points stay zero.
    """

    n_z: int = 512
    n_x: int = 512
    n_steps: int = 1000
    n_receivers: int = 256
    spacing: float = 10.0  # m
    dt: float = 1.5e-3  # s
    frequency: float = 8.0  # Hz
    sponge_width: int = 30
    source: tuple[int, int] = (12, 250)
    receiver_depth: int = 10

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_z, self.n_x

    @cached_property
    def receivers(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each receiver."""
        columns = np.linspace(4, self.n_x - 5, self.n_receivers).astype(np.int64)
        return np.full_like(columns, self.receiver_depth), columns

    @cached_property
    def velocity(self) -> np.ndarray:
        """Folded layers, m/s: the model at which the gradient is taken."""
        z, x = np.mgrid[: self.n_z, : self.n_x]
        depth = z + 12 * np.sin(2 * np.pi * x / self.n_x * 3)
        return (1500 + 1500 * depth.clip(0) / depth.max()).astype(np.float32)

    @cached_property
    def true_velocity(self) -> np.ndarray:
        """`velocity` with a disc that is 10 % faster: the model behind `observed`."""
        z, x = np.mgrid[: self.n_z, : self.n_x]
        inside = (z - self.n_z / 4) ** 2 + (x - self.n_x / 2) ** 2 < (self.n_z / 8) ** 2
        return np.where(inside, 1.1 * self.velocity, self.velocity).astype(np.float32)

    def scale(self, velocity: np.ndarray) -> np.ndarray:
        """(velocity dt / spacing)^2, the parameter of the step."""
        return ((velocity * (self.dt / self.spacing)) ** 2).astype(np.float32)

    @cached_property
    def c2(self) -> np.ndarray:
        return self.scale(self.velocity)

    @cached_property
    def sigma(self) -> np.ndarray:
        """Damping rate times dt: zero inside, growing quadratically to the edge."""
        z, x = np.mgrid[: self.n_z, : self.n_x]
        distance = np.minimum(np.minimum(x, self.n_x - 1 - x), self.n_z - 1 - z)
        inward = (1 - distance / self.sponge_width).clip(0)
        return (0.15 * inward**2).astype(np.float32)

    @cached_property
    def wavelet(self) -> np.ndarray:
        """Ricker wavelet, one sample per step."""
        t = np.arange(self.n_steps) * self.dt - 1.2 / self.frequency
        argument = (np.pi * self.frequency * t) ** 2
        return ((1 - 2 * argument) * np.exp(-argument)).astype(np.float32)

    @cached_property
    def observed(self) -> np.ndarray:
        """Traces of the true model, shape (n_steps, n_receivers), by plain NumPy."""
        return self.simulate(self.scale(self.true_velocity))

    def step(self, carry: Array, source: Array, c2: Array, sigma: Array) -> tuple[Array, Array]:
        """One time step in plain NumPy, as a user of backsweep writes it."""
        u, u_prev = carry
        rows, columns = self.receivers
        u_next = u + (1 - sigma) * (u - u_prev)
        u_next[4:-4, 4:-4] += c2[4:-4, 4:-4] * laplacian(u)
        u_next[self.source] += source
        return (u_next, u), u_next[rows, columns]

    def simulate(self, c2: np.ndarray) -> np.ndarray:
        """All traces, by a plain NumPy loop (seconds)."""
        carry = (np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32))
        traces = np.empty((self.n_steps, self.n_receivers), np.float32)
        for n, source in enumerate(self.wavelet):
            carry, traces[n] = self.step(carry, source, c2, self.sigma)
        return traces


@dataclass(frozen=True)
class Bloch:
    """Spins under an RF pulse and gradients: exact rotation, then relaxation. float64.

    The carry is (mx, my, mz), the controls are five waveforms (RF real and imaginary part [T],
    gradients [T/m]), the loss is the mean of |M - M_target|^2 at the end.
    """

    n_spins: int = 100_000
    n_steps: int = 200
    dt: float = 4e-6  # s
    gamma: float = 267.522e6  # rad/s/T
    t1: float = 0.8  # s
    t2: float = 0.05  # s
    target: tuple[float, float, float] = (0.0, 1.0, 0.0)
    seed: int = 1

    @cached_property
    def spins(self) -> tuple[np.ndarray, ...]:
        """Positions x, y, z [m] and off-resonance [rad/s], each of shape (n_spins,)."""
        rng = np.random.default_rng(self.seed)
        position = rng.uniform(-0.1, 0.1, (3, self.n_spins))
        return (*position, 2 * np.pi * rng.uniform(-100, 100, self.n_spins))

    @cached_property
    def waveforms(self) -> tuple[np.ndarray, ...]:
        """RF real, RF imaginary, Gx, Gy, Gz, each of shape (n_steps,)."""
        t = np.linspace(0, 1, self.n_steps)
        envelope = np.sin(np.pi * t)
        return (
            8e-6 * envelope * np.cos(6 * t),
            8e-6 * envelope * np.sin(6 * t),
            5e-4 * np.cos(9 * t),
            5e-4 * np.sin(7 * t),
            3e-4 * np.cos(5 * t + 1),
        )

    @cached_property
    def relaxation(self) -> tuple[float, float]:
        """exp(-dt/T1), exp(-dt/T2)."""
        return float(np.exp(-self.dt / self.t1)), float(np.exp(-self.dt / self.t2))

    def initial(self) -> tuple[np.ndarray, ...]:
        """Equilibrium: (0, 0, 1)."""
        return np.zeros(self.n_spins), np.zeros(self.n_spins), np.ones(self.n_spins)

    def step(self, xp: ModuleType, carry: Array, x: Array, consts: Array) -> Array:
        """One time step; `xp` is numpy or jax.numpy, `x` five numbers, `consts` the spins."""
        mx, my, mz = carry
        rf_real, rf_imag, gx, gy, gz = x
        px, py, pz, off_resonance = consts
        e1, e2 = self.relaxation
        wx = self.gamma * rf_real
        wy = self.gamma * rf_imag
        wz = self.gamma * (gx * px + gy * py + gz * pz) + off_resonance
        rate = xp.sqrt(wx * wx + wy * wy + wz * wz)
        nx, ny, nz = wx / rate, wy / rate, wz / rate
        sine, cosine = xp.sin(rate * self.dt), xp.cos(rate * self.dt)
        along = (1 - cosine) * (nx * mx + ny * my + nz * mz)
        return (
            e2 * (cosine * mx + sine * (my * nz - mz * ny) + along * nx),
            e2 * (cosine * my + sine * (mz * nx - mx * nz) + along * ny),
            e1 * (cosine * mz + sine * (mx * ny - my * nx) + along * nz) + (1 - e1),
        )

    def loss(self, xp: ModuleType, carry: Array) -> Array:
        """Mean over the spins of |M - M_target|^2."""
        return xp.mean(sum((m - t) ** 2 for m, t in zip(carry, self.target, strict=True)))


@dataclass(frozen=True)
class PairForces:
    """Particles on a line that attract each other by a softened inverse square, leapfrog, float64.

    The carry is (x, v); the loss is the sum of squares of the final positions; the gradient is
    taken with respect to the initial x and v.
    """

    n_particles: int = 1000
    n_steps: int = 100
    dt: float = 1e-3
    softening: float = 1e-2
    seed: int = 2

    def initial(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return rng.uniform(-1, 1, self.n_particles), 0.1 * rng.standard_normal(self.n_particles)

    def step(self, carry: Array) -> Array:
        """One time step in plain NumPy, as a user of backsweep writes it."""
        x, v = carry
        d = x[None, :] - x[:, None]
        force = (d / (d * d + self.softening) ** 1.5).sum(axis=1) / self.n_particles
        v = v + self.dt * force
        return x + self.dt * v, v

    def step_sqrt(self, xp: ModuleType, carry: Array) -> Array:
        """The same with the power as a square root, which XLA needs to be fast."""
        x, v = carry
        d = x[None, :] - x[:, None]
        r2 = d * d + self.softening
        force = (d / (r2 * xp.sqrt(r2))).sum(axis=1) / self.n_particles
        v = v + self.dt * force
        return x + self.dt * v, v


@dataclass(frozen=True)
class Heat:
    """Explicit 1D heat equation, float64; the control is the initial state, no xs, no ys."""

    n_points: int = 1000
    n_steps: int = 1_000_000
    number: float = 0.4  # diffusivity dt / spacing^2

    def initial(self) -> np.ndarray:
        x = np.linspace(0, 1, self.n_points)
        return np.sin(np.pi * x) + 0.3 * np.sin(7 * np.pi * x)

    @cached_property
    def target(self) -> np.ndarray:
        x = np.linspace(0, 1, self.n_points)
        return x * (1 - x)

    def step(self, u: Array) -> Array:
        """One time step in plain NumPy; both ends are held."""
        u_next = u.copy()
        u_next[1:-1] += self.number * (u[2:] - 2 * u[1:-1] + u[:-2])
        return u_next

    def loss(self, u: Array) -> Array:
        return 0.5 * ((u - self.target) ** 2).sum()


@dataclass(frozen=True)
class ShallowWater:
    """mpi4jax's shallow water: a jet in a channel of 1800 km x 900 km, float32.

    Depth, rotation, friction, Courant number and the first fields are those of its example
    shallow_water.py; the spacing follows the number of cells. Arrays are (y, x). The control is
    the first height, the loss the misfit of the last one.
    """

    n_y: int = 1800
    n_x: int = 3600
    n_steps: int = 10
    length: float = 1.8e6  # m, of the channel
    gravity: float = 9.81  # m/s^2
    depth: float = 100.0  # m
    coriolis: float = 2e-4  # 1/s
    beta: float = 2e-11  # 1/(m s)
    epsilon: float = 0.1  # of Adams-Bashforth

    @property
    def spacing(self) -> float:
        return self.length / self.n_x

    @property
    def dt(self) -> float:
        return 0.125 * self.spacing / float(np.sqrt(self.gravity * self.depth))

    @property
    def viscosity(self) -> float:
        return 1e-3 * self.coriolis * self.spacing**2

    @cached_property
    def f_at_corners(self) -> np.ndarray:
        y = np.arange(1, self.n_y) * self.spacing
        return (self.coriolis + self.beta * y).astype(np.float32)

    @cached_property
    def u(self) -> np.ndarray:
        y = (np.arange(self.n_y) + 0.5) * self.spacing
        jet = 10 * np.exp(-(((y - y.mean()) / (0.02 * self.length)) ** 2))
        return np.repeat(jet[:, None], self.n_x, 1).astype(np.float32)

    @cached_property
    def height(self) -> np.ndarray:
        """In balance with the jet, and disturbed."""
        y = (np.arange(self.n_y)[:, None] + 0.5) * self.spacing
        x = (np.arange(self.n_x) + 0.5) * self.spacing
        slope = -(self.coriolis + self.beta * y) / self.gravity * self.u[:, :1]
        balanced = np.cumsum(self.spacing * slope, axis=0)
        wave = np.sin(10 * np.pi * x / self.length) * np.cos(16 * np.pi * y / self.length)
        return (self.depth + balanced - balanced.mean() + 0.2 * wave).astype(np.float32)

    @cached_property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the tendencies of a step and of the one before: Euler's, then Adams-Bashforth's."""
        new = np.full(self.n_steps, (1.5 + self.epsilon) * self.dt, np.float32)
        old = np.full(self.n_steps, -(0.5 + self.epsilon) * self.dt, np.float32)
        new[0], old[0] = self.dt, 0
        return new, old


@dataclass(frozen=True)
class State:
    """The 2 MiB that the HDF5 row puts and gets: an acoustic carry, (u, u_prev) in float32."""

    shape: tuple[int, int] = (512, 512)
    seed: int = 3
    names: tuple[str, ...] = field(default=("u", "u_prev"))

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return {name: rng.standard_normal(self.shape, np.float32) for name in self.names}
