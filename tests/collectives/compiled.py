"""Steps that call collectives, run by compiled code: against Python's and against one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import backsweep as bs
from backsweep.codegen.statistics import statistics
from backsweep.comm import (
    Decomposition,
    HaloExchange,
    allreduce_max,
    allreduce_sum,
    broadcast,
    gather,
    halo_exchange,
    scatter,
)
from collectives import products

N, N_STEPS = 13, 5
PLACEMENT = ("varying", "varying", "replicated", "replicated")


def said_by_all(comm: Any, wrong: list[str]) -> list[str]:
    return [f"rank {k}: {w}" for k, own in enumerate(comm.allgather(wrong)) for w in own]


@contextmanager
def by_python() -> Any:
    os.environ["BACKSWEEP_NO_JIT"] = "1"
    try:
        yield
    finally:
        os.environ["BACKSWEEP_NO_JIT"] = "0"


def whole_arguments() -> tuple[Any, ...]:
    """Coefficients and first state on the grid, wavelet, strength."""
    rng = np.random.default_rng(5)
    return (
        rng.uniform(0.05, 0.15, N),
        rng.standard_normal(N),
        np.sin(np.arange(float(N_STEPS))),
        1.3,
    )


def alone(c: Any, u0: Any, wavelet: Any, strength: Any) -> Any:
    """One process, the grid closed by rolls."""
    source = np.zeros(N)
    source[N // 2] = 1

    def step(carry: Any, w: Any) -> Any:
        u, s = carry
        at = lambda k: np.roll(u, -k)  # noqa: E731
        far = at(1) - 2 * u + at(-1) + 0.1 * at(2) * at(-2)
        mean, top, told = np.sum(u**2) / N, np.max(u), np.sum(np.sin(u[:3]))
        new = u + c * far * (1 - 0.01 * mean) + source * (w * strength)
        new = new + 0.01 * np.sin(u) * s * top + 0.001 * told
        return (new, 0.9 * s + 0.01 * mean), (mean, top)

    (u, s), (means, tops) = bs.scan(step, (u0, 1.0 * strength), wavelet)
    return np.sum(u**4) + np.sum(means**2) + np.sum(tops) + s


def on_blocks(dec: Decomposition, checkpointing: Any = None) -> Any:
    """The same by every collective that there is."""
    comm, (first, last) = dec.comm, dec.block()[0]
    source = (np.arange(first, last) == N // 2) * 1.0

    def loss(c: Any, u0: Any, wavelet: Any, strength: Any) -> Any:
        def step(carry: Any, w: Any) -> Any:
            u, s = carry
            u = halo_exchange(u, dec, 2)
            own = u[2:-2]
            far = u[3:-1] - 2 * own + u[1:-3] + 0.1 * u[4:] * u[:-4]
            mean = allreduce_sum(np.sum(own**2), comm) / N
            top = allreduce_max(np.max(own), comm)
            told = np.sum(broadcast(np.sin(own[:3]), 0, comm))
            waves = scatter(np.sin(gather(own, dec)) * s * top, dec)
            new = np.zeros_like(u)
            new[2:-2] = own + c * far * (1 - 0.01 * mean) + source * (w * strength)
            new[2:-2] += 0.01 * waves + 0.001 * told
            return (new, 0.9 * s + 0.01 * mean), (mean, top)

        u = np.zeros(last - first + 4, like=u0)
        u[2:-2] = u0
        init = (u, 1.0 * strength)
        (u, s), (means, tops) = bs.scan(step, init, wavelet, checkpointing=checkpointing)
        return allreduce_sum(np.sum(u[2:-2] ** 4), comm) + np.sum(means**2) + np.sum(tops) + s

    return loss


@dataclass(frozen=True)
class Problem:
    """What is computed in one process and on ranks, with the same arguments."""

    alone: Callable[..., Any]
    on_blocks: Callable[..., Any]
    arguments: tuple[Any, ...]
    placement: tuple[str, ...]
    decomposition: Decomposition

    def expected(self) -> tuple[Any, Any]:
        with by_python():  # compiles nothing
            return bs.value_and_grad(self.alone, tuple(range(len(self.arguments))))(*self.arguments)

    def run(self, budget: Any = None) -> tuple[list[Any], str]:
        """Value and gradient, and who made them."""
        gradient = bs.value_and_grad(
            self.on_blocks(self.decomposition, budget),
            tuple(range(len(self.arguments))),
            placement=self.placement,
            has_report=True,
        )
        value, bars, report = gradient(*self.parts(self.arguments))
        return [value, *bars], report.scans[0].executor

    def parts(self, values: Any) -> list[Any]:
        """The rank's own of what varies."""
        at = slice(*self.decomposition.block()[0])
        pairs = zip(values, self.placement, strict=True)
        return [a[at] if p == "varying" else a for a, p in pairs]

    def gap(self, found: Any, expected: Any) -> float:
        """The largest difference from one process, relative to each array."""
        whole, own = [expected[0], *expected[1]], [expected[0], *self.parts(expected[1])]
        return max(
            float(np.max(np.abs(np.asarray(a) - b), initial=0.0) / np.max(np.abs(w)))
            for a, b, w in zip(found, own, whole, strict=True)
        )


def every_collective(comm: Any) -> list[str]:
    """Gradients of a step with every collective that there is."""
    dec = Decomposition((N,), comm=comm, periodic=True)
    return _compared(comm, Problem(alone, on_blocks, whole_arguments(), PLACEMENT, dec))


def _compared(comm: Any, problem: Problem) -> list[str]:
    """Compiled code has the bits of Python, under every schedule, and the serial answer."""
    wrong, expected = [], problem.expected()
    with by_python():
        bits, who = problem.run()
    if who != "python (BACKSWEEP_NO_JIT is set)":
        wrong.append(who)
    for budget in (None, bs.Checkpointing(snapshots=2), _of_each(comm)):
        found, who = problem.run(budget)
        if who != "native":
            wrong.append(f"{budget}: {who}")
        if any(not np.array_equal(a, b) for a, b in zip(found, bits, strict=True)):
            wrong.append(f"{budget}: not the bits of Python")
        if not (gap := problem.gap(found, expected)) <= 1e-13:
            wrong.append(f"{budget}: {gap:.1e} from one process")
    return said_by_all(comm, wrong + _unnoticed(comm, problem, expected))


def _of_each(comm: Any) -> bs.Checkpointing:
    """Memory for another number of states on each rank."""
    return bs.Checkpointing(memory=f"{200 + 100 * comm.rank} B")


def _unnoticed(comm: Any, problem: Problem, expected: Any) -> list[str]:
    """What is broken on purpose and passes all the same."""
    passed = []
    for name in ("copy", "addition"):
        with _dropped(name):
            found, _ = problem.run()
        if not max(comm.allgather(problem.gap(found, expected))) > 1e-6:
            passed.append(f"a dropped {name} is not noticed")
    return passed


@contextmanager
def _dropped(name: str) -> Any:
    """Leave out one message's (or, on one rank, image's) ghosts, or one of its additions."""
    bound, transposed = HaloExchange.bound, HaloExchange.transposed

    def without_copy(self: Any, arrays: Any) -> Any:
        own = self._incoming, self._images
        self._incoming, self._images = own[0][1:], own[1][1:]
        try:
            return bound(self, arrays)
        finally:
            self._incoming, self._images = own

    def without_addition(self: Any, arrays: Any) -> None:
        own = self._additions_after, self._additions_before, self._images
        self._additions_after, self._additions_before = own[0][1:], own[1][1:]
        self._images = own[2][1:]
        transposed(self, arrays)
        self._additions_after, self._additions_before, self._images = own

    if name == "copy":
        HaloExchange.bound = without_copy
    else:
        HaloExchange.transposed = without_addition
    try:
        yield
    finally:
        HaloExchange.bound, HaloExchange.transposed = bound, transposed


# --------------------------------------------------------------------------- a small step


def small_alone(u: Any, s: Any) -> Any:
    """Diffusion on a ring, with a sum of all that feeds back."""

    def step(u: Any, x: Any) -> Any:
        sides = np.roll(u, 1) + np.roll(u, -1)
        return u + s * (sides - 2 * u) * x + 0.01 * np.sin(np.sum(u)), None

    u, _ = bs.scan(step, u, np.linspace(0.5, 1.0, 4))
    return np.sum(u**2)


def small(dec: Decomposition, checkpointing: Any = None) -> Any:
    """The same on blocks."""

    def loss(u0: Any, s: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            u = halo_exchange(u, dec)
            own, new = u[1:-1], np.zeros_like(u)
            total = allreduce_sum(np.sum(own), dec.comm)
            new[1:-1] = own + s * (u[2:] + u[:-2] - 2 * own) * x + 0.01 * np.sin(total)
            return new, None

        u = np.zeros(u0.shape[0] + 2, like=u0)
        u[1:-1] = u0
        u, _ = bs.scan(step, u, np.linspace(0.5, 1.0, 4), checkpointing=checkpointing)
        return allreduce_sum(np.sum(u[1:-1] ** 2), dec.comm)

    return loss


def small_problem(comm: Any) -> Problem:
    dec = Decomposition((11,), comm=comm, periodic=True)
    return Problem(
        small_alone, small, (np.cos(np.arange(11.0)), 0.1), ("varying", "replicated"), dec
    )


def small_gradients(comm: Any) -> list[str]:
    """And code that is found again: what takes time is compiling."""
    return _compared(comm, small_problem(comm)) + _found_again(comm)


def _found_again(comm: Any) -> list[str]:
    """Code that is found again talks to the ranks of the program, not to those before."""
    wrong: list[str] = []
    results = []
    for k, own in enumerate((comm, comm.split(0))):
        n, sent = statistics.memory_hits, _counted(comm)
        with sent:
            found, who = small_problem(own).run()
        results.append(found)
        if who != "native":
            wrong.append(who)
        if statistics.memory_hits < n + 2:
            wrong.append("the code is not found again")
        if bool(sent.n) != (k == 0):
            wrong.append(f"communicator {k}: {sent.n} reductions on the first one")
    if any(not np.array_equal(a, b) for a, b in zip(*results, strict=True)):
        wrong.append("other bits")
    return said_by_all(comm, wrong)


class _counted:
    """Within the block the reductions on a communicator are counted."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.n = comm, 0

    def __enter__(self) -> None:
        self.whole = type(self.comm).allreduce

        def allreduce(own: Any, *args: Any) -> Any:
            self.n += own is self.comm
            return self.whole(own, *args)

        type(self.comm).allreduce = allreduce

    def __exit__(self, *args: Any) -> None:
        type(self.comm).allreduce = self.whole


def dot_products(comm: Any) -> list[str]:
    """<J v, w> = <v, J^T w> of a compiled scan."""
    problem = small_problem(comm)
    loss = small(problem.decomposition)
    shapes = (problem.decomposition.local_shape, ())
    m = products.Map(
        "small", lambda u, s: (loss(u, s),), shapes, problem.placement, ("replicated",)
    )
    found = products.gap(comm, m)
    return [] if found <= 1e-13 else [f"the two products differ by {found:.1e}"]


def random_dot_products(comm: Any, first: Any, last: Any) -> list[str]:
    """Of random programs, all of them steps of scans."""
    wrong = []
    for seed in range(int(first), int(last), 2):
        m = products.random_map(comm, seed)
        if not (found := products.gap(comm, m)) <= 1e-13:
            wrong.append(f"{m.name}: differ by {found:.1e}")
    return wrong
