"""Run under mpiexec by test_waves.py: a compiled wave that crosses blocks, against one process."""

import sys

import numpy as np

import backsweep as bs
from backsweep.comm import Decomposition, connect

SHAPE, N_STEPS = (26, 22), 40
TAPS = (-2.5, 4 / 3, -1 / 12)
"""Of a fourth-order Laplacian, along each axis."""


def wave(checkpointing):
    """Two fields, a source in one corner, receivers in another, a sponge; loss of two models."""
    rng = np.random.default_rng(3)
    wavelet = np.sin(0.4 * np.arange(N_STEPS))
    observed = rng.standard_normal((N_STEPS, 5))
    quiet = np.zeros(SHAPE)

    def loss(c2, damping):
        def step(carry, w):
            u, before = carry
            after = u + (1 - damping) * (u - before)
            lap = 2 * TAPS[0] * u[2:-2, 2:-2]
            for k in (1, 2):
                a, b = slice(2 + k, u.shape[0] - 2 + k), slice(2 - k, u.shape[0] - 2 - k)
                c, d = slice(2 + k, u.shape[1] - 2 + k), slice(2 - k, u.shape[1] - 2 - k)
                sides = u[a, 2:-2] + u[b, 2:-2] + u[2:-2, c] + u[2:-2, d]
                lap = lap + TAPS[k] * sides
            after[2:-2, 2:-2] += c2[2:-2, 2:-2] * lap
            after[4, 5] += w
            return (after, u), after[np.array([4, 12, 13, 20, 22]), np.array([4, 11, 10, 15, 3])]

        records = bs.scan(step, (quiet, quiet), wavelet, checkpointing=checkpointing)[1]
        return 0.5 * np.sum((records - observed) ** 2)

    return loss, (0.2 + 0.05 * rng.random(SHAPE), 0.1 * rng.random(SHAPE))


def same_bits(comm, checkpointing, axes, numbers, says):
    """Gradients with respect to some models, and that the sweep is the one that is meant."""
    loss, models = wave(checkpointing)
    cut = Decomposition(SHAPE, axes, comm)
    value, gradients, report = bs.value_and_grad(loss, numbers, has_report=True, decomposition=cut)(
        *models
    )
    assert says in str(report), report
    assert "native" in str(report), report
    whole = [g.gather() for g in gradients]
    if comm.is_root:
        alone, expected = bs.value_and_grad(loss, numbers)(*models)
        assert np.isclose(value, alone, rtol=1e-13, atol=0)
        for a, b in zip(whole, expected, strict=True):
            assert np.array_equal(a, b), (checkpointing, axes, np.abs(a - b).max())


def sums_inside_the_step(comm):
    """A norm of the field scales it: compiled code asks for the sum in the middle of each step."""
    rng = np.random.default_rng(4)
    start, c = rng.random(SHAPE), rng.random(SHAPE)

    def loss(c):
        def step(u, _):
            new = u * (1 - 0.1 * c)
            new[1:] += 0.1 * u[:-1]
            return new / np.sqrt(np.sum(new**2)), None

        return np.sum(c * bs.scan(step, start, length=8)[0] ** 2)

    cut = Decomposition(SHAPE, (0, 1), comm)
    _, gradient, report = bs.value_and_grad(loss, has_report=True, decomposition=cut)(c)
    assert "native" in str(report), report
    whole = gradient.gather()
    if comm.is_root:
        expected = bs.grad(loss)(c)
        assert np.abs(whole - expected).max() < 1e-13 * np.abs(expected).max()


def all_cuts(comm):
    few = bs.Checkpointing(schedule="binomial", snapshots=6)
    for axes in (0, (0, 1)):
        same_bits(comm, bs.Checkpointing(schedule="store_all"), axes, (0,), "residuals instead")
        same_bits(comm, few, axes, (0, 1), "6 snapshots")
    sums_inside_the_step(comm)


if __name__ == "__main__":
    comm = connect()
    globals()[sys.argv[1]](comm)
    if comm.is_root:
        print("right", comm.size)
