"""What stands around scans: losses of fields, sums, several scans, shots, profiles."""

import numpy as np

import backsweep as bs
from partition.points import wave, wavelet
from partition.stencils import N_STEPS, bump, field, inner, receivers, records


def diffused(c, u0, n=N_STEPS):
    def step(u, _):
        new = u.copy()
        new[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
        new[:, 1:] += 0.1 * c[:, 1:] * np.tanh(u[:, :-1] - u[:, 1:])
        return new, None

    return bs.scan(step, u0, length=n)[0]


def final_field(grid):
    def misfit(c, u0):
        u = diffused(c, u0)
        return 0.5 * np.sum((u - 0.2) ** 2)

    return misfit, (field(grid), bump(grid))


def final_stencil(grid):
    """The loss reads beyond the block, after the scan."""

    def misfit(c, u0):
        u = diffused(c, u0)
        total = 0.5 * np.sum(np.diff(u, axis=0) ** 2) + 0.5 * np.sum(np.diff(u, n=2, axis=1) ** 2)
        return total + np.sum(np.roll(u, 2, axis=0) * u)

    return misfit, (field(grid), bump(grid))


def final_points(grid):
    """Receivers on the final field, over borders of blocks."""
    ix, iz = inner(grid[0], (1, 4, 5, 6, 9)), inner(grid[1], (1, 2, 5, 6, 9))

    def misfit(c, u0):
        u = diffused(c, u0)
        return np.sum(u[ix[:, None], iz[None]] ** 2)

    return misfit, (field(grid), bump(grid))


def one_cell(grid):
    """The loss is made of one cell, which one rank has, and of one row."""

    def misfit(c, u0):
        u = diffused(c, u0)
        return u[5, 4] ** 2 * np.tanh(u[6, 3]) + np.sin(np.sum(u[4, 1:4])) + u[2, 2]

    return misfit, (field(grid), bump(grid))


def other_shapes(grid):
    """Arguments that lie on the grid, but are wider, or narrower: their gradients are whole."""
    ix, iz = receivers(grid)

    def misfit(wide, narrow, u0):
        def step(u, _):
            new = u * 0.9
            new[1:] += wide[2:-2, 1:-1] * u[:-1]
            new[1:-1] += 0.1 * narrow * u[2:]
            return new, new[ix, iz]

        return records(step, u0)

    nx, nz = grid
    return misfit, (field((nx + 3, nz + 2)), field((nx - 2, nz)), bump(grid))


def two_scans(grid):
    """One goes on where another ended, with another step; a stencil and a source between them."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        u = diffused(c, u0)
        v = u.copy()
        v[2:] += 0.1 * u[:-2] ** 2

        def step(carry, x):
            new = wave(c, *carry)
            new[3, 4] += x
            return (new, carry[0]), new[ix, iz]

        return records(step, (v, u), wavelet())

    return misfit, (field(grid), bump(grid))


def smoothed_model(grid):
    """The model of the scan is a stencil of the argument."""
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(m, w):
        c = np.exp(m) * 0.1
        c[1:-1] = (c[2:] + c[1:-1] + c[:-2]) / 3
        c = np.pad(c, ((0, 0), (1, 1)), mode="edge")
        c = (c[:, 2:] + c[:, 1:-1] + c[:, :-2]) / 3

        def step(carry, x):
            new = wave(c, *carry)
            new[grid[0] - 3, 3] += x
            return (new, carry[0]), new[ix, iz]

        return records(step, (zero, zero), w) + 0.01 * np.sum(np.diff(m, axis=0) ** 2)

    return misfit, (field(grid), wavelet())


def whole_fields(grid):
    """Every field recorded, and every other cell of it; the loss reads neighbours in time."""
    nx, nz = grid

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[1:] += c[1:] * (u[:-1] - u[1:])
            return new, (new, new[::2, 1::3], new[1:] - new[:-1])

        _, (a, b, d) = bs.scan(step, u0, length=N_STEPS)
        return np.sum((a[1:] - a[:-1]) ** 2) + np.sum(b[-1] ** 3) + np.sum(d * d)

    return misfit, (field(grid), bump(grid))


def stencil_on_records(grid):
    """The loss reads neighbours in recorded fields."""

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[1:] += c[1:] * (u[:-1] - u[1:])
            return new, new

        _, a = bs.scan(step, u0, length=N_STEPS)
        return np.sum(np.diff(a, axis=1) ** 2) + np.sum(np.diff(a, axis=2) ** 2)

    return misfit, (field(grid), bump(grid))


def forcing(grid):
    """A field per step goes in."""
    ix, iz = receivers(grid)

    def misfit(c, f):
        def step(u, x):
            new = u + x
            new[1:] += c[1:] * (u[:-1] - u[1:]) + 0.1 * x[:-1] * u[1:]
            return new, new[ix, iz]

        return records(step, np.zeros(grid), f)

    return misfit, (field(grid), 0.1 * np.random.default_rng(3).random((N_STEPS, *grid)))


def forcing_of_sources(grid):
    """A field per step made of the wavelet and a profile, before the scan."""
    ix, iz = receivers(grid)

    def misfit(shape, w):
        f = w[:, None, None] * np.diff(shape, axis=0, append=0.0)

        def step(u, x):
            new = 0.9 * u + x
            new[1:] += 0.1 * u[:-1]
            return new, new[ix, iz]

        return records(step, np.zeros(grid), f)

    return misfit, (bump(grid), wavelet())


def scalars(grid):
    """Parameters that every cell sees."""
    ix, iz = receivers(grid)

    def misfit(c, a, b):
        def step(u, _):
            new = a * u + b
            new[1:] += c[1:] * np.exp(-a * u[:-1])
            return new, new[ix, iz]

        return records(step, 0.1 * c)

    return misfit, (field(grid), np.float64(0.7), np.array([0.1]))


def profiles(grid):
    """One value for each row, one for each column."""
    ix, iz = receivers(grid)

    def misfit(rows, columns, u0):
        def step(u, _):
            new = u * (1 - 0.1 * rows[:, None]) + 0.1 * columns
            new[1:] += rows[1:, None] * u[:-1] * 0.2
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (np.arange(1.0, grid[0] + 1) / 9, np.linspace(0.2, 0.9, grid[1]), bump(grid))


def smoothed_profiles(grid):
    """Stencils on profiles, before a scan that knows them as profiles."""
    ix, iz = receivers(grid)

    def smoothed(a):
        a = np.pad(a, 2, mode="edge")
        return (a[4:] + 2 * a[2:-2] + a[:-4]) / 4

    def misfit(rows, columns, u0):
        rows, columns = smoothed(rows), smoothed(columns)

        def step(u, _):
            new = u * (1 - 0.1 * rows[:, None]) + 0.1 * columns
            new[1:] += rows[1:, None] * u[:-1] * 0.2
            return new, (new[ix, iz], 1.0 * new[4], 1.0 * new[:, 3])

        _, (y, row, column) = bs.scan(step, u0, length=N_STEPS)
        return np.sum(y**2) + np.sum(row[:, 2:] - row[:, :-2]) + np.sum(column[1:] * column[:-1])

    return misfit, (np.arange(1.0, grid[0] + 1) / 9, np.linspace(0.2, 0.9, grid[1]), bump(grid))


def captured(grid):
    """Arrays by closure, of the grid and of none; coordinates made in the step."""
    ix, iz = receivers(grid)
    damping, taper = field(grid, 5), np.linspace(0.9, 1.0, grid[0])

    def misfit(c):
        rows = np.arange(grid[0])[:, None] * 0.01

        def step(u, _):
            new = u * damping * 4 + rows * c
            new[1:] += taper[1:, None] * u[:-1]
            return new, new[ix, iz]

        return records(step, 0.1 * c)

    return misfit, (field(grid),)


def peak_of_the_field(grid):
    """A maximum of the final field, in the loss."""

    def misfit(c, u0):
        u = diffused(c, u0)
        return u.max() - u.min() + np.sum(np.max(u, axis=0))

    return misfit, (field(grid), bump(grid))


def ties(grid):
    """The largest value is attained by many cells: the first of them has the derivative."""

    def misfit(c, u0):
        u = np.minimum(np.maximum(diffused(c, u0), 0.1 * c), 0.3 * u0.mean() + 0.0 * c)
        flat = np.minimum(u0, 0.05) * c[3, 4]
        rows = np.sum(np.max(flat, axis=0) ** 2) + np.sum(np.min(np.sign(u0) * flat, axis=1) ** 2)
        return np.max(u) ** 2 + 3.0 * np.max(flat) + 2.0 * np.min(-flat) + rows

    return misfit, (field(grid), bump(grid))


def shots(grid):
    """Several simulations of one model, added up."""
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w):
        def shot(at):
            def step(carry, x):
                new = wave(c, *carry)
                new[at, 3] += x
                return (new, carry[0]), new[ix, iz]

            return records(step, (zero, zero), w)

        return bs.sum_over([1, 4, grid[0] - 2], shot)

    return misfit, (field(grid), wavelet())


def shots_and_more(grid):
    """Shots of a model that is made before, with a term after."""
    ix, iz = receivers(grid)

    def misfit(m, u0):
        c = 0.1 * np.exp(m)
        c[1:] = 0.5 * (c[1:] + c[:-1])

        def shot(number):
            u = diffused(c, u0 * (1 + number), 3)
            return np.sum(u[ix, iz] ** 2) + 0.5 * np.sum(u**2)

        return bs.sum_over([0, 1], shot) + np.sum(m**2)

    return misfit, (field(grid), bump(grid))


def checkpointed(grid):
    """Parts of the step, and of what surrounds it, are recomputed."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        @bs.checkpoint
        def model(c):
            return 0.2 * np.exp(c) * c

        c2 = model(c)

        @bs.checkpoint
        def right_side(u):
            return c2[1:-1] * (np.sin(u[2:]) - np.sin(u[:-2]))

        def step(u, _):
            new = u.copy()
            new[1:-1] += right_side(u)
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def nested(grid):
    """A scan inside the step."""

    def misfit(c, u0):
        def step(u, _):
            u = diffused(c, u, 2)
            return u, u[3, 3]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def without_a_scan(grid):
    """A program that is nothing but stencils."""

    def misfit(c):
        d = np.diff(c, axis=0) ** 2
        e = c[:, 2:] - 2 * c[:, 1:-1] + c[:, :-2]
        return np.sum(np.sqrt(d + 0.1)) + np.sum(e**2) + c[2, 3] * c[grid[0] - 1, 4]

    return misfit, (field(grid),)


def reshaped(grid):
    """Dimensions of one element come and go; the other axis is folded."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = np.expand_dims(u, 0) * c[None]
            new = new.reshape(1, 1, *grid)[0, 0]
            new = new + 0.1 * u[:, None, :][:, 0]
            new[1:] += 0.5 * u[:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))
