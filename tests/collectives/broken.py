"""Programs that ranks cannot run together: each job must end in seconds with what is wrong."""

from __future__ import annotations

import numpy as np

import backsweep as bs
from backsweep.comm import Decomposition, allreduce_max, allreduce_sum, halo_exchange

V, R = "varying", "replicated"


def _run(loss, *args, placement=V):
    bs.value_and_grad(loss, placement=placement)(*args)
    return ["was not refused"]


def other_operation(comm):
    def loss(u):
        total = allreduce_max(u, comm) if comm.rank else allreduce_sum(u, comm)
        return np.sum(total**2)

    return _run(loss, np.ones(3))


def one_more(comm):
    def loss(u):
        if comm.rank == comm.size - 1:
            u = u + allreduce_sum(u, comm)
        return allreduce_sum(np.sum(u**2), comm)

    return _run(loss, np.ones(3))


def none_on_one(comm):
    def loss(u):
        return np.sum(u**2) if comm.rank == 1 else allreduce_sum(np.sum(u**2), comm)

    return _run(loss, np.ones(3))


def other_dtype(comm):
    dtype = np.float32 if comm.rank else np.float64
    return _run(lambda u: np.sum(allreduce_sum(u, comm) ** 2), np.ones(3, dtype))


def other_size(comm):
    return _run(lambda u: np.sum(allreduce_sum(u, comm) ** 2), np.ones(3 + comm.rank))


def other_width(comm):
    dec = Decomposition((12,), comm=comm)
    width = 1 + comm.rank % 2
    u = np.ones(dec.local_shape[0] + 2 * width)

    def loss(u):
        u = halo_exchange(u, dec, width)
        return allreduce_sum(np.sum(u[width:-width] ** 2), comm)

    return _run(loss, u)


def in_the_step(comm):
    """The same outside, another order inside."""

    def loss(u):
        def step(u, _):
            a, b = allreduce_sum, allreduce_max
            if comm.rank:
                a, b = b, a
            return u * 0.5 + a(u, comm) * b(u, comm), None

        u, _ = bs.scan(step, u, length=3)
        return allreduce_sum(np.sum(u), comm)

    return _run(loss, np.ones(3))


def other_length(comm):
    def loss(u):
        step = lambda u, _: (u - 0.1 * allreduce_sum(u, comm), None)  # noqa: E731
        u, _ = bs.scan(step, u, length=3 + comm.rank)
        return allreduce_sum(np.sum(u), comm)

    return _run(loss, np.ones(3))


def in_a_plain_scan(comm):
    step = lambda u, _: (u + (allreduce_max if comm.rank else allreduce_sum)(u, comm), None)  # noqa: E731
    bs.scan(step, np.ones(3), length=2)
    return ["was not refused"]


def other_values(comm):
    def loss(u, s):
        return allreduce_sum(np.sum(u * s), comm)

    return _run(loss, np.ones(3), 1.0 + comm.rank, placement=(V, R))


def other_cotangents(comm):
    _, pullback = bs.vjp(lambda u: allreduce_sum(u, comm), np.ones(3), placement=V)
    pullback(np.full(3, comm.rank))
    return ["was not refused"]


def other_arithmetic(comm):
    """What is the same on all ranks is not, once it is multiplied by another number."""
    return _run(lambda u: allreduce_sum(np.sum(u), comm) * (comm.rank + 1.0), np.ones(3))


def inactive_on_one(comm):
    """A rank whose part does not depend on the argument makes no cotangent of the sum."""

    def loss(u, s):
        mine = u * s if comm.rank else u
        return np.sum(allreduce_sum(mine, comm) ** 2)

    bs.grad(loss, 1, placement=(V, R))(np.ones(3), 2.0)
    return ["was not refused"]


def constant_on_one(comm):
    """What one rank records of a constant the others record, too: this one is right."""

    def loss(u):
        return allreduce_sum(np.sum(u) if comm.rank else 1.0, comm) ** 2

    value, gradient = bs.value_and_grad(loss, placement=V)(np.ones(3))
    total = 1.0 + 3 * (comm.size - 1)
    is_right = value == total**2 and gradient.tolist() == [2 * total * (comm.rank > 0)] * 3
    return [] if all(comm.allgather(is_right)) else [f"{value}, {gradient}"]


def one_raises(comm):
    def loss(u):
        if comm.rank == comm.size - 1:
            raise OSError("the model's file is not there")
        return allreduce_sum(np.sum(u), comm)

    return _run(loss, np.ones(3))


ARITHMETIC = 3.0


def own_arithmetic(comm):
    """Local arithmetic may differ: this one is right."""

    def loss(u):
        mine = np.sin(u) if comm.rank else ARITHMETIC * u
        return np.sum(allreduce_sum(mine, comm))

    value, gradient = bs.value_and_grad(loss, placement=V)(np.ones(3))
    expected = np.cos(np.ones(3)) if comm.rank else np.full(3, ARITHMETIC)
    is_right = all(comm.allgather(bool(np.allclose(gradient, expected, rtol=1e-14))))
    return [] if is_right else ["another gradient"]
