"""Sources and receivers: points on the grid, in several blocks, on their borders."""

import numpy as np

import backsweep as bs
from partition.stencils import N_STEPS, bump, field, receivers, records


def wave(c, u, old):
    new = 2 * u - old
    new[1:-1, 1:-1] += c[1:-1, 1:-1] * (
        u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
    )
    return new


def wavelet(n=N_STEPS):
    return np.sin(1.0 + np.arange(float(n)))


def one_source(grid):
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w):
        def step(carry, x):
            new = wave(c, *carry)
            new[grid[0] // 2, 3] += x
            return (new, carry[0]), new[ix, iz]

        return records(step, (zero, zero), w)

    return misfit, (field(grid), wavelet())


def many_sources(grid):
    """A wavelet and a strength for each, at given places, no two the same."""
    sx, sz = np.array([0, 4, grid[0] - 1, 6, 7]), np.array([0, 5, 2, 6, 6])
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, strength, w):
        def step(carry, x):
            new = wave(c, *carry)
            new[sx, sz] += strength * x
            return (new, carry[0]), new[ix, iz]

        return records(step, (zero, zero), w)

    w = np.cos(np.arange(N_STEPS * 5.0)).reshape(N_STEPS, 5)
    return misfit, (field(grid), np.arange(1.0, 6.0), w)


def coinciding_sources(grid):
    """np.add.at: some in the same cell, added in their order."""
    sx, sz = np.array([5, 2, 5, 5, 2, 9]), np.array([3, 2, 3, 4, 2, 1])
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w):
        def step(carry, x):
            new = wave(c, *carry)
            np.add.at(new, (sx, sz), x)
            return (new, carry[0]), new[ix, iz]

        return records(step, (zero, zero), w)

    return misfit, (field(grid), 0.1 * np.random.default_rng(4).random((N_STEPS, 6)))


def between_cells(grid):
    """Sources and receivers off the grid: rows of points with weights, over borders of blocks."""
    nx, nz = grid
    near = np.arange(4)
    rx = np.clip(np.array([1, 3, 5, nx - 4])[:, None, None] + near[None, :, None], 0, nx - 1)
    rz = np.clip(np.array([2, 4, 0, nz - 4])[:, None, None] + near[None, None, :], 0, nz - 1)
    rx, rz = np.broadcast_arrays(rx, rz)
    weights = np.random.default_rng(2).random(rx.shape)
    zero = np.zeros(grid)

    def misfit(c, w):
        def step(carry, x):
            new = wave(c, *carry)
            np.add.at(new, (rx[1:3], rz[1:3]), x[:, None, None] * weights[1:3])
            return (new, carry[0]), np.sum(new[rx, rz] * weights, axis=(1, 2))

        return records(step, (zero, zero), w)

    return misfit, (field(grid), 0.1 + np.random.default_rng(5).random((N_STEPS, 2)))


def overwritten(grid):
    """Values written, not added: what is there is lost; later ones win."""
    sx, sz = np.array([2, 5, 5, 2]), np.array([4, 4, 4, 0])
    ix, iz = receivers(grid)

    def misfit(c, u0, w):
        def step(u, x):
            new = u.copy()
            new[1:] += c[1:] * (u[:-1] - u[1:])
            new[sx[:2], sz[:2]] = x[:2]
            new[sx[3], sz[3]] = x[3] * new[sx[3], sz[3]]
            return new, new[ix, iz]

        return records(step, u0, w)

    return misfit, (field(grid), bump(grid), np.random.default_rng(6).random((N_STEPS, 4)))


def lines(grid):
    """Records of lines and points that slices name."""
    nx, nz = grid

    def misfit(c, u0):
        def step(u, _):
            new = u + 0.0
            new[1:, 1:] -= c[1:, 1:] * (u[1:, 1:] - u[:-1, :-1])
            y = new[:, 3], new[nx // 2], new[4, 5], new[2:9:2, 1], new[-1, ::-2]
            return new, tuple(np.array([1.0]) * part for part in y)

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def rows_of_columns(grid):
    """An index array on one dimension, slices on the other."""
    rows = np.array([0, 3, grid[0] - 1, 6, 6])

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[1:] -= c[1:] * (u[1:] - u[:-1])
            new[:, :-1] += 0.1 * u[:, 1:]
            return new, (new[rows], new[rows, 2:7], new[:, rows % grid[1]])

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def points_of_the_model(grid):
    """Gathers and scatters outside of the scan."""
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w):
        c = c.copy()
        c[ix[:2], iz[:2]] *= 0.5
        at = c[ix, iz]

        def step(carry, x):
            new = wave(c, *carry)
            new[4, 4] += x * at[0]
            return (new, carry[0]), new[ix, iz] * at

        return records(step, (zero, zero), w) + np.sum(at**2)

    return misfit, (field(grid), wavelet())


def sources_by_argument(grid):
    """The places are arguments as well: integers, the same on all ranks."""
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w, sx, sz):
        def step(carry, x):
            new = wave(c, *carry)
            np.add.at(new, (sx, sz), x)
            return (new, carry[0]), new[ix, iz]

        return records(step, (zero, zero), w)

    return misfit, (field(grid), wavelet(), np.array([4, 6, -1]), np.array([3, 3, -2]))


def moving_source(grid):
    """Its place is only known when the program runs."""
    zero = np.zeros(grid)

    def misfit(c):
        def step(carry, i):
            new = wave(c, *carry)
            new[i, 3] += 1.0
            return (new, carry[0]), new[:, 3]

        return records(step, (zero, zero), np.arange(N_STEPS))

    return misfit, (field(grid),)


def traces(grid):
    """A loss of traces in which neighbours in time and among receivers meet."""
    ix, iz = receivers(grid)
    zero = np.zeros(grid)

    def misfit(c, w):
        def step(carry, x):
            new = wave(c, *carry)
            new[5, 3] += x
            return (new, carry[0]), new[ix, iz]

        _, y = bs.scan(step, (zero, zero), w)
        y = y[1:] - 0.9 * y[:-1]
        return np.sum(np.sqrt(1 + (y[:, 1:] + y[:, :-1]) ** 2)) / np.max(np.abs(y) + 1.0)

    return misfit, (field(grid), wavelet())
