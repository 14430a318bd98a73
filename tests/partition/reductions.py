"""Steps that add up, compare or combine all of an axis."""

import numpy as np

from partition.stencils import bump, field, receivers, records


def normalised(grid):
    """A sum over the grid feeds the field, as in imaginary time."""
    ix, iz = receivers(grid)

    def misfit(v, u0):
        def step(u, _):
            new = u * (1 - 0.1 * v)
            new[1:] += 0.1 * u[:-1]
            new = new / np.sqrt(np.sum(new**2))
            return new, (new[ix, iz], np.sum(v * new**2), np.mean(new, axis=0))

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def sums_of_rows(grid):
    """Sums over one axis feed the field."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            means = np.mean(u, axis=0)
            others = np.sum(u * c, axis=1, keepdims=True)
            new = 0.5 * u + 0.1 * means + 0.02 * others
            new[1:] += 0.1 * u[:-1] * means
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def largest(grid):
    """A maximum over the grid feeds the field, another one is recorded."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = u / (1 + np.max(np.abs(u)))
            new[1:] += c[1:] * u[:-1]
            return new, (new[ix, iz], np.min(new), np.max(new, axis=0))

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def largest_of_the_other_axis(grid):
    def misfit(c, u0):
        def step(u, _):
            new = u / (1 + np.max(np.abs(u), axis=1, keepdims=True))
            new[1:] += c[1:] * u[:-1]
            return new, np.min(new, axis=1)

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def far_away(grid):
    """Every cell reads the first row."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = 0.5 * u + 0.1 * (u - u[0]) * c
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def cumulative(grid):
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = 0.5 * u + 0.1 * np.cumsum(u * c, axis=1)
            new[1:] += 0.1 * u[:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def multiplied(grid):
    """A matrix along the second axis."""
    ix, iz = receivers(grid)
    matrix = np.random.default_rng(8).random((grid[1], grid[1])) / grid[1]

    def misfit(c, u0):
        def step(u, _):
            new = u @ matrix + c
            new[1:] += 0.1 * u[:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))
