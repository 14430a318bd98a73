"""What is asked of jobs on ranks beside the bits of single programs; run by ranks.py."""

import gc
import os
import resource
from dataclasses import replace
from functools import partial

import numpy as np

import backsweep as bs
from backsweep.comm import BlockedArray, Decomposition, HaloExchange
from backsweep.passes.partition.loops import LoopCut
from partition import nested
from partition.comparing import GRID, Case, check
from partition.losses import diffused
from partition.stencils import bump, field, receivers, records

N_STEPS = 20


def simulation(checkpointing):
    """A program whose trajectory is kept as asked."""

    def build(grid):
        ix, iz = receivers(grid)

        def misfit(c, u0, w):
            def step(carry, x):
                u, old = carry
                new = 1.9 * u - 0.9 * old
                new[2:-2] += c[2:-2] * (u[4:] - 2 * u[2:-2] + u[:-4])
                new[:, 1:] += 0.1 * np.sin(u[:, :-1])
                new[3, 3] += x
                return (new, u), new[ix, iz]

            _, y = bs.scan(step, (u0, 0.9 * u0), w, checkpointing=checkpointing)
            return 0.5 * np.sum((y - 0.3) ** 2)

        return misfit, (field(grid), bump(grid), np.sin(np.arange(float(N_STEPS))))

    return build


def schedules(comm):
    """Every way to keep a trajectory gives the same bits."""
    disk = {"memory": "16 KiB", "disk": "4 MiB", "directory": os.getcwd()}
    each = {
        "all": bs.Checkpointing(schedule="store_all"),
        "three": bs.Checkpointing(snapshots=3),
        "one": bs.Checkpointing(snapshots=1),
        "disk": bs.Checkpointing(**disk),
    }
    return check(comm, [Case(k, simulation(v), axes=((0,),)) for k, v in each.items()])


def many_gradients(comm):
    """They leave nothing behind, and each one depends on nothing but its model."""
    misfit, (c, u0, w) = simulation(bs.Checkpointing(snapshots=3))(GRID)
    cut = Decomposition(GRID, (0,), comm)
    gradient = bs.value_and_grad(misfit, decomposition=cut)
    alone = bs.value_and_grad(misfit)
    wrong, sizes = [], []
    for k in range(50):
        model = c * (1 + 0.01 * k)
        value, found = gradient(model, u0, w)
        if k in (0, 1, 49):
            expected, whole = alone(model, u0, w), found.gather()
            if value != expected[0] or (comm.is_root and not np.array_equal(whole, expected[1])):
                wrong.append(f"gradient {k} differs")
        if k in (9, 49):
            gc.collect()
            n_open = sum(isinstance(o, HaloExchange) for o in gc.get_objects())
            files = len(os.listdir("/proc/self/fd"))
            sizes.append((n_open, files, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    (a, f, kib), (b, g, more) = sizes
    if b > a or g > f or more > kib + 4096:
        wrong.append(f"exchanges, files, KiB grew from {sizes[0]} to {sizes[1]}")
    return [w for own in comm.allgather(wrong) for w in own]


def lost_messages(comm):
    """A halo of which one message gets lost is noticed by the comparison."""
    cases = [
        Case("slices", simulation(None), axes=((0,),)),
        Case("loss", _stencil_of_the_end, 1e-13, axes=((0,),)),
    ]
    finish, bound, wrong = HaloExchange.finish, HaloExchange.bound, []
    for is_dropped in (False, True):
        rounds = []

        def lossy(self, arrays, work, is_dropped=is_dropped, rounds=rounds):
            before = [a.copy() for a in arrays]
            work()
            rounds.append(1)
            if is_dropped and comm.rank == comm.size - 1 and len(rounds) % 5 == 0:
                for message in self._incoming[:1]:
                    for piece in message.pieces:
                        arrays[piece.field][piece.where] = before[piece.field][piece.where]

        HaloExchange.finish = lambda self, arrays, lossy=lossy: lossy(
            self, arrays, partial(finish, self, arrays)
        )
        HaloExchange.bound = lambda self, arrays, lossy=lossy: partial(
            lossy, self, arrays, bound(self, arrays)
        )
        try:
            for case in cases:
                found = check(comm, [case])
                if bool(found) != is_dropped:
                    wrong.append(f"{case.name}, dropped {is_dropped}: {found}")
        finally:
            HaloExchange.finish, HaloExchange.bound = finish, bound
    return wrong


def too_little_room(comm):
    """Cells that a loop in the step needs, and does not get, are noticed by the comparison."""
    cases = [
        Case("implicit", nested.implicit, 1e-13, wholes=1e-13, axes=((0,), (1,))),
        Case("three_deep", nested.three_deep, axes=((0,),)),
    ]
    grow, wrong = LoopCut._grow, []

    def short(self, *args):
        shape = self.shape
        self.shape = replace(shape, length=shape.length - 1)
        grow(self, *args)
        self.shape = shape

    for is_short in (False, True):
        LoopCut._grow = short if is_short else grow
        for case in cases:
            found = check(comm, [case])
            if bool(found) != is_short:
                wrong.append(f"{case.name}, too little room {is_short}: {found}")
    LoopCut._grow = grow
    return wrong


def _stencil_of_the_end(grid):
    def misfit(c, u0):
        u = diffused(c, u0)
        return np.sum(np.diff(u, axis=0) ** 2)

    return misfit, (field(grid), bump(grid))


def parts_as_arguments(comm):
    """The gradient of one evaluation is an argument of the next, though its parts have no halo."""
    misfit, (c, u0, w) = simulation(None)(GRID)
    cut = Decomposition(GRID, (0,), comm)

    def padded(g, u0, w):
        return misfit(c + 0.1 * np.pad(g, ((1, 0), (0, 0)), mode="edge")[:-1], u0, w)

    _, g = bs.value_and_grad(misfit, decomposition=cut)(c, u0, w)
    value, again = bs.value_and_grad(padded, decomposition=cut)(g, u0, w)
    _, alone = bs.value_and_grad(misfit)(c, u0, w)
    expected = bs.value_and_grad(padded)(alone, u0, w)
    whole = again.gather()
    is_same = value == expected[0] and (not comm.is_root or np.array_equal(whole, expected[1]))
    return [] if all(comm.allgather(is_same)) else ["gradients of gradients' models differ"]


def memory(comm):
    """What a gradient on a larger grid takes on this rank, of which no array is global: MiB."""
    taken = [_peak_of_gradient(comm, n) for n in (200, 1400)]
    most = max(comm.allgather(taken[1] - taken[0]))
    return [f"{most:.0f} MiB"]


def _peak_of_gradient(comm, n):
    grid = (1600, n)

    def block(ranges):
        rows, columns = (np.arange(r.start, r.stop) for r in ranges)
        return 0.1 + 1e-5 * rows[:, None] + 1e-6 * columns

    def misfit(c):
        def step(u, x):
            new = u + x
            new[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            return new, new[800, 3:9]

        return records(step, 0.5 * c, np.arange(3.0))

    gradient = bs.value_and_grad(misfit, decomposition=Decomposition(grid, (0,), comm))
    _, found = gradient(BlockedArray(grid, np.float64, block))
    assert found.local.shape[0] == 1600 // comm.size
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ------------------------------------------------------------------ what goes wrong


def _evaluate(comm, misfit, *args, shape=GRID):
    cut = Decomposition(shape, (0,), comm)
    bs.value_and_grad(misfit, decomposition=cut)(*args)
    return ["was not refused"]


def other_programs(comm):
    misfit, args = _stencil_of_the_end(GRID)
    return _evaluate(comm, lambda c, u: misfit(c, u) + (np.sum(c) if comm.rank else 0.0), *args)


def other_shapes(comm):
    grid = (GRID[0] + (comm.rank == 1), GRID[1])
    misfit, args = _stencil_of_the_end(grid)
    return _evaluate(comm, misfit, *args)


def other_indices(comm):
    at = np.array([3, 3 + comm.rank])

    def misfit(c, u0):
        return np.sum(diffused(c, u0)[at, at] ** 2)

    return _evaluate(comm, misfit, *_stencil_of_the_end(GRID)[1])


def other_values(comm):
    misfit, args = _stencil_of_the_end(GRID)
    return _evaluate(comm, misfit, args[0], args[1] + comm.rank)


def one_raises(comm):
    misfit, args = _stencil_of_the_end(GRID)

    def broken(c, u0):
        if comm.rank == comm.size - 1:
            raise OSError("the model's file is not there")
        return misfit(c, u0)

    return _evaluate(comm, broken, *args)


def wrong_grid(comm):
    misfit, args = _stencil_of_the_end(GRID)
    return _evaluate(comm, misfit, *args, shape=(GRID[0] + 4, GRID[1]))


def far_reads(comm):
    """On a grid whose blocks are wider than a halo may be."""

    def misfit(c):
        def step(u, _):
            return 0.5 * u + 0.1 * (u - u[0]) * c, u[3, 3:5]

        return records(step, 1.0 * c)

    return _evaluate(comm, misfit, field((400, 3)), shape=(400, 3))
