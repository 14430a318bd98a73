"""Waves on blocks whose step exchanges ghosts itself, against the same waves in one process."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from external_steps import Burgers, traced_burgers

import backsweep as bs
from backsweep.comm import Decomposition, HaloExchange, allreduce_max, allreduce_sum, halo_exchange

GRID = (11, 10)
N_STEPS = 6
SOURCE, RECEIVERS = (5, 4), ((2, 3, 8), (7, 1, 6))
PLACEMENT = ("varying", "varying", "replicated", "replicated")


def whole_arguments() -> tuple[Any, ...]:
    """Model, first state, wavelet, strength."""
    rng = np.random.default_rng(3)
    model, state = rng.uniform(0.05, 0.15, GRID), rng.standard_normal(GRID)
    return model, state, np.sin(np.arange(float(N_STEPS))), 1.3


def marks() -> tuple[np.ndarray, np.ndarray]:
    """Where the source is, and which receiver is where."""
    source, receivers = np.zeros(GRID), np.zeros((3, *GRID))
    source[SOURCE] = 1
    for k, at in enumerate(zip(*RECEIVERS, strict=True)):
        receivers[(k, *at)] = 1
    return source, receivers


def stencil(p: Any, c2: Any) -> Any:
    """Fourth order along both axes and a diagonal, on an array with two cells around."""

    def at(i: int, j: int) -> Any:
        return p[2 + i : p.shape[0] - 2 + i, 2 + j : p.shape[1] - 2 + j]

    sides = at(1, 0) + at(-1, 0) + at(0, 1) + at(0, -1)
    far = at(2, 0) + at(-2, 0) + at(0, 2) + at(0, -2)
    return c2 * (4 / 3 * sides - far / 12 - 5 * at(0, 0) + 0.1 * at(1, -1) * at(-2, 2))


def alone(periodic: tuple[bool, bool], checkpointing: Any = None) -> Any:
    source, receivers = marks()

    def surrounded(u: Any) -> Any:
        p = np.zeros((u.shape[0] + 4, u.shape[1] + 4), like=u)
        p[2:-2, 2:-2] = u
        if periodic[0]:
            p[:2], p[-2:] = 1 * p[-4:-2], 1 * p[2:4]
        if periodic[1]:
            p[:, :2], p[:, -2:] = 1 * p[:, -4:-2], 1 * p[:, 2:4]
        return p

    def misfit(c2: Any, u0: Any, wavelet: Any, strength: Any) -> Any:
        def step(carry: Any, w: Any) -> Any:
            u, old = carry
            new = 2 * u - old + stencil(surrounded(u), c2) + source * (w * strength)
            return (new, u), np.sum(receivers * new, axis=(1, 2))

        (u, _), y = bs.scan(step, (u0, 0.9 * u0), wavelet, checkpointing=checkpointing)
        return np.sum(y**2) + 0.1 * np.sum(u**4) + np.sum(strength * c2**2)

    return misfit


def on_blocks(dec: Decomposition, checkpointing: Any = None) -> Any:
    rows, columns = (slice(*r) for r in dec.block())
    source, receivers = (a[..., rows, columns].copy() for a in marks())
    widths = [2 if axis in dec.axes else 0 for axis in (0, 1)]
    own = tuple(slice(w, -w or None) for w in widths)
    comm = dec.comm

    def surrounded(u: Any) -> Any:
        """Room for the stencil along the axis that is not cut."""
        more = [2 - w for w in widths]
        p = np.zeros([n + 2 * m for n, m in zip(u.shape, more, strict=True)], like=u)
        p[tuple(slice(m, -m or None) for m in more)] = u
        return p

    def misfit(c2: Any, u0: Any, wavelet: Any, strength: Any) -> Any:
        def step(carry: Any, w: Any) -> Any:
            u, old = carry
            u = halo_exchange(u, dec, 2)
            new = np.zeros_like(u)
            new[own] = 2 * u[own] - old[own] + stencil(surrounded(u), c2) + source * (w * strength)
            return (new, u), np.sum(receivers * new[own], axis=(1, 2))

        first = np.zeros([n + 2 * w for n, w in zip(u0.shape, widths, strict=True)], like=u0)
        first[own] = u0
        (u, _), y = bs.scan(step, (first, 0.9 * first), wavelet, checkpointing=checkpointing)
        seen = np.sum(allreduce_sum(y, comm) ** 2)
        return seen + allreduce_sum(0.1 * np.sum(u[own] ** 4) + np.sum(strength * c2**2), comm)

    return misfit


def parts(dec: Decomposition, values: Any) -> tuple[Any, ...]:
    """The rank's own of model and state; the rest is whole."""
    rows, columns = (slice(*r) for r in dec.block())
    return (*(a[rows, columns] for a in values[:2]), *values[2:])


def compared(what: str, dec: Decomposition, found: Any, expected: Any) -> list[str]:
    wrong = []
    for k, (a, b) in enumerate(zip(found, parts(dec, expected), strict=True)):
        size = np.max(np.abs(expected[k]))
        gap = float(np.max(np.abs(np.asarray(a) - b)) / size)
        if not gap <= 1e-13:
            wrong.append(f"{what}, {k}: differs by {gap:.1e}")
    return [w for own in dec.comm.allgather(wrong) for w in own]


def cuts(comm: Any) -> list[Decomposition]:
    found = [
        Decomposition(GRID, (0,), comm),
        Decomposition(GRID, (1,), comm, periodic=True),
        Decomposition(GRID, (0, 1), comm, periodic=(True, False)),
    ]
    return found


def gradients(comm: Any) -> list[str]:
    """Value and gradient are those of one process, whatever the cut."""
    wrong, args = [], whole_arguments()
    for dec in cuts(comm):
        closed = tuple(axis in dec.axes and dec.periodic[dec.axes.index(axis)] for axis in (0, 1))
        value, gradient = bs.value_and_grad(alone(closed), (0, 1, 2, 3))(*args)
        found, own = bs.value_and_grad(on_blocks(dec), (0, 1, 2, 3), placement=PLACEMENT)(
            *parts(dec, args)
        )
        if not abs(found - value) <= 1e-13 * abs(value):
            wrong.append(f"{dec}: value {found!r} instead of {value!r}")
        wrong += compared(str(dec), dec, own, gradient)
    return wrong


def directions(comm: Any) -> list[str]:
    """Forward mode, second derivatives and pullbacks, too."""
    args = whole_arguments()
    dots = tuple(np.cos(3 * np.asarray(a)) for a in args)
    dec = cuts(comm)[2]
    serial, local = alone((True, False)), on_blocks(dec)
    own, own_dots = parts(dec, args), parts(dec, dots)
    value, slope = bs.jvp(serial, args, dots)
    found = bs.jvp(local, own, own_dots, placement=PLACEMENT)
    wrong = [f"jvp: {found}"] if not np.allclose(found, (value, slope), rtol=1e-13) else []
    _, push = bs.linearize(local, *own, placement=PLACEMENT)
    if not np.isclose(push(*own_dots), slope, rtol=1e-13):
        wrong.append("linearize: another slope")
    gradient, product = bs.hvp(serial, args, dots)
    found = bs.hvp(local, own, own_dots, placement=PLACEMENT)
    wrong += compared("gradient of hvp", dec, found[0], gradient)
    wrong += compared("product of hvp", dec, found[1], product)
    _, pullback = bs.vjp(local, *own, placement=PLACEMENT)
    for scale in (1.0, 2.0):
        wrong += compared("vjp", dec, pullback(scale), [scale * g for g in gradient])
    return wrong


def schedules(comm: Any) -> list[str]:
    """Every way to keep states gives the same bits."""
    args, dec = whole_arguments(), cuts(comm)[0]
    budgets = {
        "all": bs.Checkpointing(schedule="store_all"),
        "three": bs.Checkpointing(snapshots=3),
        "one": bs.Checkpointing(snapshots=1),
        "disk": bs.Checkpointing(memory="5 KiB", disk="4 MiB", directory=os.getcwd()),
        "uneven": bs.Checkpointing(memory=f"{3 + comm.rank} KiB"),
    }
    found = {}
    for name, budget in budgets.items():
        gradient = bs.value_and_grad(on_blocks(dec, budget), (0, 2), placement=PLACEMENT)
        value, own = gradient(*parts(dec, args))
        found[name] = [np.asarray(value).tobytes(), *(g.tobytes() for g in own)]
    wrong = [f"{name} has other bits" for name, bits in found.items() if bits != found["all"]]
    return [w for own in comm.allgather(wrong) for w in own]


def extrema(comm: Any) -> list[str]:
    """All of the derivative to the lowest rank that attains an entry; NaN wins."""
    levels = np.array([1.0, 2.0, 2.0, 0.5 + comm.rank])
    if comm.rank == comm.size - 1:
        levels[0] = 3.0

    def loss(u: Any) -> Any:
        return np.sum(allreduce_max(u, comm) * np.arange(1.0, 5.0))

    _, gradient = bs.value_and_grad(loss, placement="varying")(levels)
    is_last, is_first = comm.rank == comm.size - 1, comm.rank == 0
    expected = [is_last * 1.0, is_first * 2.0, is_first * 3.0, is_last * 4.0]
    wrong = [] if gradient.tolist() == expected else [f"rank {comm.rank}: {gradient}"]
    levels[1] = np.nan if is_last else 2.0
    value, gradient = bs.value_and_grad(lambda u: allreduce_max(u, comm)[1], placement="varying")(
        levels
    )
    if not np.isnan(value) or gradient[1] != is_last:
        wrong.append(f"rank {comm.rank}: NaN, {gradient}")
    return [w for own in comm.allgather(wrong) for w in own]


def reductions(comm: Any) -> list[str]:
    """A gradient of what is replicated is reduced once, not in every step."""
    args, dec = whole_arguments(), cuts(comm)[0]
    counted: list[int] = []
    whole = type(comm).allreduce

    def counting(self: Any, array: Any, op: str = "sum") -> Any:
        if np.asarray(array).dtype.kind == "f":  # no flag
            counted.append(np.size(array))
        return whole(self, array, op)

    type(comm).allreduce = counting
    try:
        bs.grad(on_blocks(dec), (2, 3), placement=PLACEMENT)(*parts(dec, args))
    finally:
        type(comm).allreduce = whole
    # Records and energy forward; wavelet and strength backward.
    is_right = sorted(counted) == [1, 1, N_STEPS, 3 * N_STEPS]
    wrong = [] if is_right else [f"reductions of {counted} numbers"]
    return [w for own in comm.allgather(wrong) for w in own]


def ensembles(comm: Any) -> list[str]:
    """Each rank's own simulation of one model: its scan calls nothing, and is compiled as such."""
    starts = [np.sin(np.arange(12.0) * (k + 1)) for k in range(comm.size)]

    def own(model: Any, scale: Any, start: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            new = u + 0.0
            new[1:-1] += scale * model[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
            return new, new[3]

        u, y = bs.scan(step, start, length=5)
        return np.sum(u**2) + np.sum(y**2)

    def serial(model: Any, scale: Any) -> Any:
        return sum(own(model, scale, start) for start in starts)

    def shared(model: Any, scale: Any) -> Any:
        return allreduce_sum(own(model, scale, starts[comm.rank]), comm)

    model = np.linspace(0.1, 0.3, 12)
    value, gradient = bs.value_and_grad(serial, (0, 1))(model, 1.2)
    how = {"has_report": True, "placement": ("replicated", "replicated")}
    found, bars, report = bs.value_and_grad(shared, (0, 1), **how)(model, 1.2)
    wrong = [] if abs(found - value) < 1e-13 * value else [f"value {found}"]
    wrong += [
        f"gradient differs by {np.max(np.abs(a - b))}"
        for a, b in zip(bars, gradient, strict=True)
        if not np.allclose(a, b, rtol=1e-13, atol=1e-15)
    ]
    if "ranks talk" in report.scans[0].executor:
        wrong.append(report.scans[0].executor)
    return [w for own in comm.allgather(wrong) for w in own]


def nested(comm: Any) -> list[str]:
    """A scan that calls collectives in the step of one, and `jit` around them."""

    def loss(u: Any, s: Any) -> Any:
        def outer(carry: Any, x: Any) -> Any:
            def inner(v: Any, _: Any) -> Any:
                mean = allreduce_sum(np.sum(v), comm) / (4 * comm.size)
                return v - 0.1 * s * (v - mean) * x, None

            v, _ = bs.scan(inner, np.sin(carry), length=3)
            return bs.jit(lambda v: v + 0.01 * allreduce_sum(v, comm))(v), allreduce_max(v, comm)

        u, y = bs.scan(outer, u, np.linspace(0.5, 1.0, 4))
        return allreduce_sum(np.sum(u**2), comm) + np.sum(y**2)

    def whole(u: Any, s: Any) -> Any:
        """The same with one dimension for the ranks."""

        def outer(carry: Any, x: Any) -> Any:
            def inner(v: Any, _: Any) -> Any:
                return v - 0.1 * s * (v - np.mean(v)) * x, None

            v, _ = bs.scan(inner, np.sin(carry), length=3)
            return v + 0.01 * np.sum(v, axis=0), np.max(v, axis=0)

        u, y = bs.scan(outer, u, np.linspace(0.5, 1.0, 4))
        return np.sum(u**2) + np.sum(y**2)

    values = np.cos(np.arange(4.0 * comm.size)).reshape(comm.size, 4)
    args, dots = (values, 1.3), (np.sin(values), 0.4)
    own = [(a[comm.rank], b) for a, b in (args, dots)]
    gradient, product = bs.hvp(whole, args, dots)
    found = bs.hvp(loss, *own, placement=("varying", "replicated"))
    wrong = []
    for (a, b), (c, d) in zip(found, (gradient, product), strict=True):
        is_right = np.allclose(a, c[comm.rank], rtol=1e-12) and np.isclose(b, d, rtol=1e-12)
        wrong += [] if is_right else [f"rank {comm.rank}: {a}, {b} instead of {c}, {d}"]
    return [w for own in comm.allgather(wrong) for w in own]


def own_steps(comm: Any) -> list[str]:
    """A step that brings its own reverse, among collectives."""
    start, wavelet = np.sin(np.arange(20.0) * (1 + comm.rank) / 7), np.linspace(0, 1, 6)

    def loss_of(make: Any) -> Any:
        def loss(nu: Any, w: Any, u: Any) -> Any:
            step = make(nu)

            def talking(carry: Any, x: Any) -> Any:
                new, y = step(carry, x)
                return new + 0.001 * allreduce_sum(new, comm), y

            a, y = bs.scan(step, u, w)
            b, z = bs.scan(talking, u, w)
            return allreduce_sum(np.sum(a**2) + np.sum(y**2) + np.sum(a * b) + np.sum(z**3), comm)

        return loss

    made = (
        lambda nu: bs.external_step(Burgers(), consts={"nu": nu}, y_like=np.zeros(3)),
        traced_burgers,
    )
    placement = ("replicated", "replicated", "varying")
    found, expected = (
        bs.grad(loss_of(make), (0, 1, 2), placement=placement)(0.1, wavelet, start) for make in made
    )
    pairs = zip(found, expected, strict=True)
    is_right = all(np.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in pairs)
    return [] if all(comm.allgather(is_right)) else ["another gradient"]


def noticed(comm: Any) -> list[str]:
    """A halo whose addition is dropped, or whose order is another one, is noticed."""
    whole, wrong = HaloExchange.transposed, []

    def dropped(self: Any, arrays: Any) -> None:
        before = self._additions_after
        self._additions_after = before[1:]
        whole(self, arrays)
        self._additions_after = before

    HaloExchange.transposed = dropped
    try:
        if not gradients(comm):
            wrong.append("a halo of which an addition is dropped passes")
    finally:
        HaloExchange.transposed = whole
    return [w for own in comm.allgather(wrong) for w in own]
