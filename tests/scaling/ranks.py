"""Run under mpiexec by test_ranks.py: each rank checks, the root says "right"."""

import itertools
import sys
from dataclasses import replace

import numpy as np

import backsweep as bs
from backsweep.comm import Decomposition, HaloExchange, world
from backsweep.comm.mpi import MPIComm
from backsweep.errors import CommError
from backsweep.passes.partition.halo import HaloField
from backsweep.runtime.calibrate import measure_machine
from backsweep.runtime.work import GATHERS, GATHERS_OF_SCAN, Place, round_of

CUTS = (((24,), 0), ((16, 12), (0, 1)), ((8, 8, 8), (0, 1, 2)), ((3, 400, 200), (1, 2)))


def field_of(cut, extra, low, high, dtype):
    """A padded field with ghosts, as this rank holds it; axes of the grid are the last ones."""
    owned, layout = [(0, 2)] if extra else [], [(0, 2)] if extra else []
    for axis, n in enumerate(cut.shape):
        lo, hi = cut.owned(axis, 0, 1, n)
        owned.append((lo, hi))
        if axis not in cut.axes:
            layout.append((lo, hi))
        elif cut.periodic[cut.axes.index(axis)]:
            layout.append((lo - low, hi + high))
        else:
            layout.append((max(0, lo - low), min(n, hi + high)))
    shape = ((2,) if extra else ()) + cut.shape
    return HaloField(shape, np.dtype(dtype), tuple(owned), tuple(layout), 0, True, 0)


def messages_are_counted(comm):
    """What is predicted of a round is what an exchange makes."""
    n_checked = 0
    widths = ((1, 1), (2, 4), (0, 3))
    for (shape, axes), periodic, (low, high) in itertools.product(CUTS, (False, True), widths):
        try:
            cut = Decomposition(shape, axes, comm, periodic=periodic)
        except CommError:
            continue
        if any(n % p for n, p in zip((shape[a] for a in cut.axes), cut.ranks, strict=True)):
            continue  # blocks of one length, as the prediction takes them to be
        one = field_of(cut, False, low, high, "f8")
        other = field_of(cut, True, high, low, "f4")
        fields = [replace(f, component=k, source=k) for k, f in enumerate((one, other))]
        found = round_of(fields, Place(cut, comm.rank, ranks_per_node=2))
        arguments = (
            [f.shape for f in fields],
            [f.owned for f in fields],
            [f.layout for f in fields],
            [f.dtype for f in fields],
        )
        with HaloExchange(comm, *arguments) as halo:
            far = [m for m in halo._incoming if m.rank // 2 != comm.rank // 2]
            near = [m for m in halo._incoming if m.rank // 2 == comm.rank // 2]
            what = (shape, axes, periodic, low, high)
            assert (found.n_near, found.n_far) == (len(near), len(far)), what
            assert found.near_bytes == sum(m.buffer.nbytes for m in near), what
            assert found.far_bytes == sum(m.buffer.nbytes for m in far), what
            n_checked += len(halo._incoming) > 0
    assert n_checked >= 6


def objects_through_the_root_are_counted(comm):
    n_gathered = 0
    gather = MPIComm.gather

    def counted(self, value):
        nonlocal n_gathered
        n_gathered += 1
        return gather(self, value)

    def misfit(c):
        def step(u, _):
            u = u.copy()
            u[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            return u, u[np.array([3, 9])]

        u, seen = bs.scan(step, np.ones(16), length=5)
        total = np.sum(seen**2)
        if n_scans == 2:
            total = total + np.sum(bs.scan(step, u, length=4)[1])
        return total

    blocks = bs.Decomposition((16,), comm=comm)
    for n_scans in (1, 2):
        MPIComm.gather, n_gathered = counted, 0
        bs.value_and_grad(misfit, decomposition=blocks)(np.full(16, 0.1))
        MPIComm.gather = gather
        assert n_gathered == GATHERS + n_scans * GATHERS_OF_SCAN, (n_scans, n_gathered)


def trials_are_each_ranks_own(comm):
    """They run as many steps as each has time for: were anything agreed on, all would wait."""
    from backsweep.runtime import trial

    def misfit(c):
        def step(u, _):
            u = u.copy()
            u[1:-1] += c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            return u, None

        few = bs.Checkpointing(snapshots=3)
        return np.sum(bs.scan(step, np.ones(16), length=400, checkpointing=few)[0] ** 2)

    trial.TRIAL_SECONDS = 1e-9 if comm.is_root else 0.05
    blocks = bs.Decomposition((16,), comm=comm)
    found = bs.plan(misfit, measure=True, decomposition=blocks)(np.full(16, 0.1))
    assert found.seconds > 0


def a_machine_is_measured(comm):
    found = measure_machine(comm)
    assumed = {"network_seconds", "network_bandwidth", "job_hours"}
    if comm.size <= found.cores:
        assumed.add("waiting_seconds")
    assert set(found.assumed) == assumed
    assert 1e-7 < found.message_seconds < 1e-2
    assert 1e-7 < found.stage_seconds < 1e-1
    assert 1e7 < found.bandwidth < 1e13
    assert comm.allgather(found) == [found] * comm.size


if __name__ == "__main__":
    comm = world()
    for name in sys.argv[1:]:
        globals()[name](comm)
    if comm.is_root:
        print("right", comm.size)
