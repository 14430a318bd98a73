"""Steps that read their neighbours: slices, writes in place, shifts, margins, staggered grids."""

import numpy as np

import backsweep as bs

N_STEPS = 6


def field(grid, seed=0, low=0.1, dtype=np.float64):
    return (low + 0.2 * np.random.default_rng(seed).random(grid)).astype(dtype)


def bump(grid, dtype=np.float64):
    x, z = np.linspace(-1.0, 1.0, grid[0])[:, None], np.linspace(-1.0, 1.0, grid[1])
    return np.exp(-3 * (x - 0.1) ** 2 - 2 * (z + 0.2) ** 2).astype(dtype)


def records(step, init, xs=None, length=N_STEPS):
    """The misfit of what a scan records."""
    _, y = bs.scan(step, init, xs, length=None if xs is not None else length)
    return sum(0.5 * np.sum((part - 0.3) ** 2) for part in (y if isinstance(y, tuple) else (y,)))


def inner(n, at):
    return np.array([k % n for k in at])


def receivers(grid):
    """Points that lie in several blocks, two of them the same."""
    nx, nz = grid
    return inner(nx, (0, 3, nx // 2, nx // 2, nx - 1, 5)), inner(nz, (1, 0, 4, 4, nz - 1, nz // 2))


def slices(grid):
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            lap = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
            new = u.copy()
            new[1:-1, 1:-1] += c[1:-1, 1:-1] * lap
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def one_sided(grid):
    """The differences reach three cells to one side only, of a nonlinear function."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = np.sin(u)
            new[3:] -= c[3:] * (u[3:] ** 2 - u[:-3] * u[1:-2])
            new[:, :-2] += 0.1 * np.tanh(u[:, 2:]) * c[:, 1:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def in_place(grid):
    """Writes through views, to edges, in an order that matters."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            u = u + 0.0
            inside = u[1:-1]
            inside *= 1 - c[1:-1]
            u[0] = u[1]
            u[-1, :] = 0.5 * u[-2]
            u[:, 0] = -u[:, 1]
            u[2:-2, 2:-2] += 0.1 * (u[4:, 2:-2] - u[:-4, 2:-2])
            u[3:-1][:, 1::2] -= 0.2 * u[1:-3, 1::2]
            return u, u[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def periodic(grid):
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            flux = c * (u - np.roll(u, 1, axis=0)) + 0.1 * np.roll(u, -2, axis=1)
            new = u - 0.5 * (np.roll(flux, -1, axis=0) - flux) - 0.05 * np.roll(u, 3, axis=(0, 1))
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def margins(grid):
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            zero = np.pad(u, 2)
            edge = np.pad(u, ((1, 1), (0, 0)), mode="edge")
            new = u + c * (zero[4:, 2:-2] - 2 * u + zero[:-4, 2:-2])
            new = new + 0.1 * (edge[2:] - edge[:-2]) + 0.02 * zero[2:-2, 3:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def edges_of_edges(grid):
    """Edges repeated along one axis, then along the other, farther than a block is wide."""
    ix, iz = receivers(grid)

    def differences(u, s, axis):
        wide = np.pad(u, [(s, s) if d == axis else (0, 0) for d in range(2)], mode="edge")
        return np.moveaxis(wide, axis, 0)[2 * s :] - np.moveaxis(wide, axis, 0)[: -2 * s]

    def misfit(c, u0):
        def step(u, _):
            v = 0.5 * u + 0.2 * differences(c * u, 3, 0)
            new = 0.5 * u + 0.2 * differences(v, 4, 1).T
            return new, (new[ix, iz], new[2:5, 1:] * c[2:5, 1:])

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def padded_state(grid):
    """The state is wider than the grid, as one with absorbing layers, unevenly."""
    nx, nz = grid
    ix, iz = receivers((nx + 5, nz + 3))

    def misfit(c):
        c = np.pad(c, ((2, 3), (1, 2)), mode="edge")

        def step(carry, x):
            u, old = carry
            new = 2 * u - old
            new[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            new[:, 1:-1] += 0.1 * (u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2])
            new[nx // 2, nz // 2] += x
            return (new, u), new[ix, iz]

        zero = np.zeros((nx + 5, nz + 3))
        return records(step, (zero, zero), np.arange(1.0, N_STEPS + 1))

    return misfit, (field(grid),)


def strided(grid):
    """Red and black cells in turn, every other row, downwards."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[1:-1:2] += c[1:-1:2] * (u[2::2][: u[1:-1:2].shape[0]] - u[1:-1:2])
            new[::3, ::2] *= 0.9
            new[2:-2:2] -= 0.1 * new[1:-3:2] * new[3:-1:2]
            coarse = u[::2, 1::2]
            new[::2, 1::2] += 0.1 * coarse**2
            return new, (new[ix, iz], np.sum(new[1::3], axis=1))

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def flipped(grid):
    """Along the axis that is not cut; along the other it is a read from far away."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = 0.9 * u + 0.1 * c * u[:, ::-1]
            new[1:] += 0.01 * np.flip(u, 1)[:-1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def flipped_along_the_cut(grid):
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            return 0.9 * u + 0.1 * c * u[::-1, ::-1], u[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def staggered(grid):
    """Pressures in cells, velocities on faces: n and n + 1, n - 1."""
    nx, nz = grid
    ix, iz = receivers(grid)

    def misfit(rho, k):
        def step(carry, x):
            p, vx, vz = carry
            vx = vx.copy()
            vx[1:-1] -= 0.5 * (rho[1:] + rho[:-1]) * (p[1:] - p[:-1])
            vz = vz - 0.4 * rho[:, 1:] * (p[:, 1:] - p[:, :-1])
            div = vx[1:] - vx[:-1]
            div[:, 1:-1] += vz[:, 1:] - vz[:, :-1]
            p = p - k * div
            p[nx // 2, 2] += x
            return (p, vx, vz), (p[ix, iz], vx[nx, 3], vz[ix[:3], iz[:3] % (nz - 1)])

        init = np.zeros((nx, nz)), np.zeros((nx + 1, nz)), np.zeros((nx, nz - 1))
        return records(step, init, np.sin(np.arange(8.0)))

    return misfit, (field(grid), field(grid, 1))


def several_carries(grid):
    """Of different reach; one is handed on, one is constant, one has a leading dimension."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(carry, _):
            u, old, mask, v = carry
            new = 1.8 * u - 0.9 * old
            new[2:-2] += c[2:-2] * (u[4:] - 2 * u[2:-2] + u[:-4])
            v = v.copy()
            v[0, :, 1:] = 0.5 * v[1, :, :-1] + 0.1 * u[:, 1:]
            v[1] += mask * v[0]
            new = new + 0.05 * v[1] * mask
            return (new, u, mask, v), (new[ix, iz], v[0][ix, iz])

        mask = np.where(field(grid, 3) > 0.2, 1.0, 0.3)
        return records(step, (u0, 0.9 * u0, mask, np.zeros((2, *grid))))

    return misfit, (field(grid), bump(grid))


def wide(grid):
    """Reads up to five cells away: farther than some blocks are wide."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[5:-5] += c[5:-5] * (u[10:] - u[:-10])
            new[:, 4:-4] += 0.1 * (u[:, 8:] + u[:, :-8])
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def branches(grid):
    """Masks, where, clip, comparisons; integer and boolean carries that count and remember."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(carry, _):
            u, n, seen, total = carry
            flux = np.where(u[1:] > u[:-1], c[1:] * u[1:], c[:-1] * u[:-1] ** 2)
            u = u.copy()
            u[1:] -= 0.2 * flux
            u[u > 0.8] = 0.8
            u = np.clip(u, -0.5, 0.9) + 0.01 * np.maximum(u, c)
            seen = seen | (u > 0.4)
            total = total + seen.astype(np.int64)
            u = u + np.where(total > 2, 0.05, 0.0) * (1.0 + n % 2)
            return (u, n + 1, seen, total), u[ix, iz]

        state = u0, 0, np.zeros(grid, bool), np.zeros(grid, np.int64)
        return records(step, state)

    return misfit, (field(grid), bump(grid))


def single(grid):
    """float32, and a factor of float64 that must not widen it."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            new = u.copy()
            new[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            new[:, 1:] -= 0.1 * u[:, :-1] ** 2
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid, dtype=np.float32), bump(grid, np.float32))


def complex_field(grid):
    """As in quantum mechanics, with a complex model."""
    ix, iz = receivers(grid)

    def misfit(v, psi):
        def step(psi, _):
            new = psi - 0.1j * v * psi
            new[1:-1] += 0.1j * (psi[2:] - 2 * psi[1:-1] + psi[:-2])
            new[:, 1:] += 0.05 * np.conj(psi[:, :-1]) * v[:, 1:].real
            return new, np.abs(new[ix, iz])

        return records(step, psi)

    return misfit, (field(grid) + 0.1j * field(grid, 1), bump(grid) * (1 + 0.5j))


def transposed(grid):
    """Works on the transposed field."""
    ix, iz = receivers(grid)

    def misfit(c, u0):
        def step(u, _):
            t = u.T
            new = t.copy()
            new[:, 1:] -= 0.3 * (t[:, 1:] - t[:, :-1]) * c.T[:, 1:]
            new[1:] += 0.1 * t[:-1]
            return new.T, new.T[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))


def joined_and_stacked(grid):
    ix, iz = receivers(grid)
    nx = grid[0]

    def misfit(c, u0):
        def step(u, _):
            shifted = np.concatenate([u[2:], 0.5 * u[:2]], axis=0)
            both = np.stack([u, shifted])
            wide = np.concatenate([u[:, :1] * 0.0, u, u[:, -1:]], axis=1)
            new = c * np.sum(both, axis=0) + 0.3 * wide[:, 2:] + 0.2 * both[1] * u
            new[: nx // 2] += 0.1 * both[0, 1 : nx // 2 + 1]
            return new, new[ix, iz]

        return records(step, u0)

    return misfit, (field(grid), bump(grid))
