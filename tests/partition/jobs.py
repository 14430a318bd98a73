"""What is asked of jobs on ranks beside the bits of single programs; run by ranks.py."""

import gc
import os
import resource
import time
from dataclasses import replace

import numpy as np
from losing import losing

import backsweep as bs
from backsweep.codegen.overlap import Travelling
from backsweep.comm import BlockedArray, Decomposition, HaloExchange
from backsweep.comm.boxes import slices_in
from backsweep.comm.prepared import PreparedExchange
from backsweep.errors import RecordError
from backsweep.passes.partition.loops import LoopCut
from backsweep.runtime.ghosts import Round
from backsweep.runtime.sweeper import StateMemory
from partition import nested
from partition.comparing import GRID, Case, check
from partition.losses import diffused, final_field
from partition.stencils import bump, field, receivers, records

N_STEPS = 20


def simulation(checkpointing, source=(3, 3)):
    """A program whose trajectory is kept as asked."""

    def build(grid):
        ix, iz = receivers(grid)

        def misfit(c, u0, w):
            def step(carry, x):
                u, old = carry
                new = 1.9 * u - 0.9 * old
                new[2:-2] += c[2:-2] * (u[4:] - 2 * u[2:-2] + u[:-4])
                new[:, 1:] += 0.1 * np.sin(u[:, :-1])
                new[source] += x
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
    prepared, wrong = HaloExchange.prepared, []
    for is_dropped in (False, True):
        rounds = []

        def is_lost(exchange, is_dropped=is_dropped, rounds=rounds):
            rounds.append(1)
            return is_dropped and comm.rank == comm.size - 1 and len(rounds) % 5 == 0

        HaloExchange.prepared = losing(is_lost)
        try:
            for case in cases:
                found = check(comm, [case])
                if bool(found) != is_dropped:
                    wrong.append(f"{case.name}, dropped {is_dropped}: {found}")
        finally:
            HaloExchange.prepared = prepared
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


def messages_that_travel(comm, few=""):
    """Rows that no message touches are computed meanwhile, and only those.

    The source leaves the late way of `codegen.overlap` to the step, the records leave the early
    one to its adjoint. Were all rows computed meanwhile, gradients would be wrong.
    """
    grid, ways = (120, 48), set()
    write, start, quiet_rows = Travelling.write, PreparedExchange.start, Round.quiet_rows

    def watched(self, *args):
        ways.add(self.is_early)
        write(self, *args)

    def delayed(self):
        time.sleep(1e-3 * (comm.rank % 2))
        start(self)

    def is_right(**schedule):
        checkpointing = bs.Checkpointing(**schedule)
        misfit, args = simulation(checkpointing, source=(grid[0] // 2, 3))(grid)
        gradients = []
        for cut in (None, Decomposition(grid, (0,), comm)):
            os.environ["BACKSWEEP_NO_JIT"] = str(int(cut is None))
            gradient = bs.value_and_grad(misfit, argnums=(0, 2), decomposition=cut)
            gradients.append(gradient(*args))
        (value, (c, w)), (found, (part, again)) = gradients
        assert np.any(w)
        c = c[slices_in(part.box, ((0, n) for n in grid))]
        return found == value and np.array_equal(w, again) and np.array_equal(c, part.local)

    Travelling.write, PreparedExchange.start = watched, delayed
    checked = [is_right(schedule="store_all"), bool(few) or is_right(snapshots=2)]
    Round.quiet_rows = lambda self, component: (0, 1 << 40)
    is_noticed = not is_right(schedule="store_all")
    Travelling.write, PreparedExchange.start, Round.quiet_rows = write, start, quiet_rows
    outcome = checked, ways, any(comm.allgather(is_noticed))
    return [] if outcome == ([True, True], {False, True}, True) else [str(outcome)]


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


def shots_of_a_sum(comm):
    """They are written out, but one ends before the next one begins: each has all the memory."""
    little = bs.Checkpointing(memory="16 KiB")

    def misfit(c):
        def shot(at):
            def step(u, x):
                new = u.copy()
                new[1:] += c[1:] * np.sin(u[:-1])
                return new, new[at, 3] * x

            return np.sum(bs.scan(step, 1.0 * c, np.arange(40.0), checkpointing=little)[1] ** 2)

        return bs.sum_over([1, 4, 8], shot)

    cut = Decomposition(GRID, (0,), comm)
    *_, alone = bs.value_and_grad(misfit, has_report=True)(field(GRID))
    *_, blocks = bs.value_and_grad(misfit, has_report=True, decomposition=cut)(field(GRID))
    known, found = ([s.n_snapshots for s in report.scans] for report in (alone, blocks))
    is_right = len(found) == 3 and 1 < min(known) < 30 and min(found) >= min(known)
    return [] if is_right else [f"snapshots of shots: {found}, alone {known}"]


def recorded(comm):
    """The adjoint of blocks is not recorded as that of the grid."""
    misfit, args = final_field(GRID)
    try:
        with bs.record_adjoint("adjoint.h5"):
            _evaluate(comm, misfit, *args)
    except RecordError as error:
        return [] if "blocks" in str(error) and not os.path.exists("adjoint.h5") else [str(error)]
    return ["was not refused"]


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


def called_back(comm):
    """Compiled code that calls back leaves no memory to the collector, and says what failed."""

    def fails(array, op="sum"):
        raise ValueError("no luck")

    def norm(u0):
        def step(u, _):
            new = u / np.sum(u**2)
            new[1:] += 0.1 * u[:-1]
            return new, None

        return bs.scan(step, u0, length=3)[0][2, 3]

    gradient = bs.grad(norm, decomposition=Decomposition(GRID, (0,), comm))
    gc.collect()
    gc.disable()
    gradient(field(GRID))
    assert not [o for o in gc.get_objects() if isinstance(o, StateMemory)]
    comm.allreduce = fails
    gradient(field(GRID))
