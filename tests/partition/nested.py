"""Loops inside the step: sweeps of a solver, substeps, reactions in each cell."""

import numpy as np

import backsweep as bs
from partition.stencils import N_STEPS, bump, field, inner, receivers, records


def relaxed(c, b, v, n):
    """n sweeps of Jacobi's method for an implicit step of diffusion from b."""

    def sweep(v, _):
        new = v.copy()
        sides = v[2:, 1:-1] + v[:-2, 1:-1] + v[1:-1, 2:] + v[1:-1, :-2]
        middle = c[1:-1, 1:-1]
        new[1:-1, 1:-1] = (b[1:-1, 1:-1] + middle * sides) / (1 + 4 * middle)
        return new, None

    return bs.scan(sweep, v, length=n)[0]


def implicit(grid):
    """What the inner loop is given, its constants and its start, depends on the outer state."""
    ix, iz = receivers(grid)

    def misfit(c, u0, w):
        def step(u, x):
            b = u + 0.1 * x * np.sin(u)
            new = relaxed(c, b, 0.5 * b, 3)
            new[grid[0] // 2, 3] += x
            return new, new[ix, iz]

        return records(step, u0, w)

    return misfit, (field(grid), bump(grid), np.sin(np.arange(5.0)))


def between_stencils(grid):
    """Explicit differences before the loop and behind it: messages may travel meanwhile."""
    ix, iz = receivers(grid)

    def misfit(c, u0, w):
        def step(carry, x):
            u, p = carry
            b = u.copy()
            b[2:-2] += c[2:-2] * (u[4:] - 2 * u[2:-2] + np.sin(u[:-4]))
            new = relaxed(c, b, 0.5 * b, 3) + 0.1 * p
            new[2:-2] += 0.1 * c[2:-2] * (p[4:] - p[:-4]) * np.tanh(u[2:-2])
            new[grid[0] // 2, 3] += x
            return (new, u), new[ix, iz]

        return records(step, (u0, 0.5 * u0), w)

    return misfit, (field(grid), bump(grid), np.sin(np.arange(5.0)))


def substeps(grid):
    """Two fields that leapfrog, driven at a point and recorded within; one-sided reads."""
    ix, iz = receivers(grid)

    def misfit(c, rho, w):
        def substep(carry, x):
            p, v = carry
            v = v.copy()
            v[1:] -= 0.4 * rho[1:] * (p[1:] - p[:-1])
            p = p.copy()
            p[:-1] -= c[:-1] * (v[1:] - v[:-1])
            p[:, 2:] += 0.05 * np.tanh(p[:, :-2]) * c[:, 2:]
            p[ix[1], iz[3]] += x
            return (p, v), (p[ix, iz], 0.1 * v)

        def step(carry, x):
            carry, (seen, flow) = bs.scan(substep, carry, x)
            p, v = carry
            return (p, v + 0.02 * flow[0] * flow[2]), (seen, np.mean(flow, axis=0)[1:4, 2:5])

        zero = np.zeros(grid)
        return records(step, (zero, zero), w)

    return misfit, (field(grid), field(grid, 1), np.cos(np.arange(12.0)).reshape(4, 3))


def numbered(grid):
    """A loop over numbers that are used, given forces of the outer state, around the ends."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            forces = np.stack([u * c, np.sin(u), c - u, 0.3 * u])

            def body(i, v):
                turned = np.roll(v, 2, axis=0) - np.roll(v, -1, axis=1)
                return 0.9 * v + 0.1 * c * turned + 0.02 * (i + 1.0) * forces[i]

            return bs.fori_loop(0, 4, body, u), u[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def reactions(grid):
    """Many steps in each cell alone, between steps of diffusion; rates of all cells."""
    ix, iz = receivers(grid)

    def misfit(c, u0, rates):
        def step(carry, _):
            def react(carry, _):
                u, v = carry
                both = rates[0] * u * v
                return (u - 0.02 * both, v + 0.02 * (both - rates[1] * v)), None

            (u, v), _ = bs.scan(react, carry, length=20)
            u = u.copy()
            u[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            u[:, :-1] += 0.1 * c[:, :-1] * u[:, 1:]
            return (u, v), (u[ix, iz], v[ix, iz])

        return records(step, (u0, 0.5 * u0))

    return misfit, (field(grid), bump(grid), np.array([0.9, 0.4]))


def three_deep(grid):
    """A loop in a loop in the step, and another one beside it."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            def correct(u, _):
                v = relaxed(c, u, u, 2)
                return u + 0.5 * (v - u) * c, v[2:4]

            u, some = bs.scan(correct, u, length=2)
            v = relaxed(0.5 * c, u, u + 0.1, 2)
            return v, (v[ix, iz], some)

        return records(step, u0, length=3)

    return misfit, (field(grid), bump(grid))


def single_inside(grid):
    """float32: cotangents of constants add up over inner steps in float64."""
    c, u0, w = implicit(grid)[1]
    args = c.astype(np.float32), u0.astype(np.float32), w.astype(np.float32)
    return implicit(grid)[0], args


def normalised_inside(grid):
    """A sum and a maximum over the grid in each inner step."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            def power(v, _):
                new = c * v
                new[1:] += 0.3 * v[:-1]
                new = new / np.sqrt(np.sum(new**2))
                return new, np.max(new)

            v, tops = bs.scan(power, u, length=3)
            return v + 0.1 * u, (v[ix, iz], tops)

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def wide_inside(grid):
    """A state wider than the grid; the inner steps read farther than some blocks are wide."""
    nx, nz = grid
    ix, iz = receivers((nx + 3, nz + 2))

    def misfit(c):
        wide = np.pad(c, ((1, 2), (1, 1)), mode="edge")

        def step(u, x):
            def substep(u, _):
                new = u.copy()
                new[2:-2] += 0.2 * wide[2:-2] * (u[4:] - 2 * u[2:-2] + u[1:-3])
                new[:, :-3] -= 0.1 * wide[:, 2:-1] * u[:, 1:-2]
                new[0] = new[1]
                return new, None

            u = u.copy()
            u[nx // 2, nz // 2] += x
            u = bs.scan(substep, u, length=3)[0]
            return u, u[ix, iz]

        return records(step, np.zeros((nx + 3, nz + 2)), np.arange(1.0, N_STEPS))

    return misfit, (field(grid),)


def until_it_is_small(grid):
    """How many sweeps there are depends on the field."""

    def misfit(c, u0):
        def step(u, _):
            def goes_on(carry):
                return np.max(np.abs(carry)) > 0.5

            return bs.while_loop(goes_on, lambda v: 0.9 * v * (1 - c), u, max_steps=50), None

        return np.sum(bs.scan(step, u0, length=2)[0] ** 2)

    return misfit, (field(grid), 2 * bump(grid))


def many_sweeps(grid):
    """More than a block has cells, so that every rank reads all of the grid."""
    k = inner(grid[0], (3,))[0]

    def misfit(c, u0):
        def step(u, _):
            u = relaxed(c, u, u, 30)
            return u, u[k, 2]

        return records(step, u0, length=2)

    return misfit, (field(grid), bump(grid))
