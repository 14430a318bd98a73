"""Dot products across ranks: <J v, w> = <v, J^T w> for every collective and for random programs.

Each rank's array is a vector of its own; a replicated value counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import backsweep as bs
from backsweep.comm import (
    AbstractComm,
    Decomposition,
    allreduce_max,
    allreduce_min,
    allreduce_sum,
    broadcast,
    gather,
    halo_exchange,
    scatter,
)

V, R = "varying", "replicated"


@dataclass(frozen=True)
class Map:
    """A function, the shapes and placements of its arguments, and the placements of its results."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    placement: tuple[str, ...]
    gives: tuple[str, ...]
    dtype: str = "f8"


def draw(comm: AbstractComm, seed: int, shape: tuple[int, ...], placement: str, dtype: str) -> Any:
    rng = np.random.default_rng([seed, 0 if placement == R else comm.rank + 1])
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values, dtype)


def inner(comm: AbstractComm, xs: Any, ys: Any, placements: tuple[str, ...]) -> float:
    own = [np.real(np.vdot(x, y)) for x, y in zip(xs, ys, strict=True)]
    total = sum(float(d) for d, p in zip(own, placements, strict=True) if p == V)
    once = sum(float(d) for d, p in zip(own, placements, strict=True) if p == R)
    return float(comm.allreduce(np.array(total))) + once


def gap(comm: AbstractComm, m: Map, seed: int = 0) -> float:
    """By how much the two products differ, relative to their vectors."""
    kinds = list(zip(m.shapes, m.placement, strict=True))
    x = tuple(draw(comm, seed + k, s, p, m.dtype) for k, (s, p) in enumerate(kinds))
    v = tuple(draw(comm, seed + 100 + k, s, p, m.dtype) for k, (s, p) in enumerate(kinds))
    out, jv = bs.jvp(m.function, x, v, placement=m.placement)
    same, pullback = bs.vjp(m.function, *x, placement=m.placement)
    w = tuple(
        draw(comm, seed + 200 + k, np.shape(o), p, np.asarray(o).dtype)
        for k, (o, p) in enumerate(zip(out, m.gives, strict=True))
    )
    bars = pullback(w)
    for a, b in zip(out, same, strict=True):
        assert np.array_equal(a, b), "jvp and vjp have other values"
    left, right = inner(comm, jv, w, m.gives), inner(comm, v, bars, m.placement)
    size = np.sqrt(inner(comm, jv, jv, m.gives) * inner(comm, w, w, m.gives))
    size = max(size, np.sqrt(inner(comm, v, v, m.placement) * inner(comm, bars, bars, m.placement)))
    assert size > 0, f"{m.name}: nothing is tested"
    return abs(left - right) / size


def slope_gap(comm: AbstractComm, m: Map, seed: int = 0) -> float:
    """By how much J v differs from a central difference."""
    kinds = list(zip(m.shapes, m.placement, strict=True))
    x = [draw(comm, seed + k, s, p, m.dtype) for k, (s, p) in enumerate(kinds)]
    v = [draw(comm, seed + 100 + k, s, p, m.dtype) for k, (s, p) in enumerate(kinds)]
    _, jv = bs.jvp(m.function, x, v, placement=m.placement)

    def at(h: float) -> Any:
        return m.function(*(a + h * b for a, b in zip(x, v, strict=True)))

    h, worst = 1e-5, 0.0
    for after, before, dot in zip(at(h), at(-h), jv, strict=True):
        slope = (np.asarray(after) - before) / (2 * h)
        worst = max(worst, float(np.max(np.abs(slope - dot) / (1 + np.abs(dot)))))
    return float(comm.allreduce(np.array(worst), "max"))


def single_maps(comm: AbstractComm) -> list[Map]:
    """Each collective alone, on grids cut along one and two axes."""
    found = []
    flat = Decomposition((13,), comm=comm)
    ring = Decomposition((13,), comm=comm, periodic=True)
    both = Decomposition((9, 8), axes=(0, 1), comm=comm, periodic=(False, True))
    for name, dec, width, lead in [
        ("flat", flat, 1, ()),
        ("ring", ring, 2, ()),
        ("wide", ring, 5, (2,)),
        ("both", both, (2, 1), ()),
        ("lead", both, 1, (3,)),
    ]:
        wide = np.broadcast_to(width, len(dec.axes))
        of_axis = dict(zip(dec.axes, wide, strict=True))
        local = tuple(n + 2 * of_axis.get(k, 0) for k, n in enumerate(dec.local_shape))
        for dtype in ("f8", "c16") if name == "flat" else ("f8",):
            found += [
                Map(
                    f"halo_exchange {name}",
                    lambda u, dec=dec, width=width: (halo_exchange(u, dec, width),),
                    ((*lead, *local),),
                    (V,),
                    (V,),
                    dtype,
                ),
                Map(
                    f"gather {name}",
                    lambda u, dec=dec: (gather(u, dec),),
                    ((*lead, *dec.local_shape),),
                    (V,),
                    (R,),
                    dtype,
                ),
                Map(
                    f"scatter {name}",
                    lambda u, dec=dec: (scatter(u, dec),),
                    ((*lead, *dec.shape),),
                    (R,),
                    (V,),
                    dtype,
                ),
            ]
    root = comm.size - 1
    for name, function in [
        ("allreduce_sum", lambda u: (allreduce_sum(u, comm),)),
        ("allreduce_max", lambda u: (allreduce_max(u, comm),)),
        ("allreduce_min", lambda u: (allreduce_min(u, comm),)),
        ("broadcast", lambda u: (broadcast(u, root, comm),)),
        ("replicate", lambda u: (u * allreduce_sum(np.sin(u[0]), comm),)),
    ]:
        found.append(Map(name, function, ((4, 3),), (V,), (V,) if name == "replicate" else (R,)))
    found.append(Map("mixed", lambda u, s: (u * s, s * s), ((5,), ()), (V, R), (V, R)))
    return found


# --------------------------------------------------------------------------- random programs


def random_map(comm: AbstractComm, seed: int) -> Map:
    """Some collectives and arithmetic in a random order; for odd seeds as the step of a scan."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(9, 14))
    dec = Decomposition((n,), comm=comm, periodic=bool(rng.integers(2)))
    width = int(rng.integers(1, 4))
    (own,) = dec.local_shape
    moves = [(int(rng.integers(len(_MOVES))), rng.random()) for _ in range(8)]

    def body(a: Any, k: Any, r: Any, s: Any) -> tuple[Any, ...]:
        for move, number in moves:
            a, k, r, s = _MOVES[move](a, k, r, s, number, dec, width, comm)
        return a, k, r, s

    def looped(a: Any, k: Any, r: Any, s: Any) -> tuple[Any, ...]:
        scale = np.sin(s)  # replicated, and read by what varies

        def step(carry: Any, x: Any) -> Any:
            a, k, r, s = body(*carry)
            return (0.5 * a * np.cos(r[0]), 0.5 * k + scale, 0.5 * r, 0.3 * s + x), (k, s)

        budget = bs.Checkpointing(snapshots=1 + seed % 3)
        carry, ys = bs.scan(step, (a, k, r, s), np.linspace(0, 1, 4), checkpointing=budget)
        return (*carry, *ys)

    shapes = ((own + 2 * width,), (3,), (n,), ())
    placement = (V, V, R, R)
    if seed % 2:
        return Map(f"random {seed}", looped, shapes, placement, (*placement, V, R))
    return Map(f"random {seed}", body, shapes, placement, placement)


def _exchanged(a, k, r, s, number, dec, width, comm):
    return halo_exchange(a, dec, width), k, r, s


def _stencil(a, k, r, s, number, dec, width, comm):
    new = np.zeros_like(a)
    new[1:-1] = a[2:] - number * a[1:-1] * a[:-2]
    return new, k, r, s


def _summed(a, k, r, s, number, dec, width, comm):
    own = a[width:-width]
    return a, k, r, 0.1 * allreduce_sum(np.sum(np.sin(own)), comm) + number * s


def _gathered(a, k, r, s, number, dec, width, comm):
    return a, k, 0.5 * np.sin(gather(a[width:-width], dec)) + number * r, s


def _scattered(a, k, r, s, number, dec, width, comm):
    new = np.zeros_like(a)
    new[width:-width] = number * scatter(np.cos(r) * s, dec)
    return a + new, k, r, s


def _largest(a, k, r, s, number, dec, width, comm):
    return a, k * np.sin(s), r, s + allreduce_max(number * k, comm)[1]


def _smallest(a, k, r, s, number, dec, width, comm):
    return a, k - np.sum(allreduce_min(k * k, comm)), r, s


def _told(a, k, r, s, number, dec, width, comm):
    said = broadcast(np.sin(k), (comm.size - 1) // 2, comm)
    return a, number * k + np.sum(r[:3] * said), r * said[0], s


def _scaled(a, k, r, s, number, dec, width, comm):
    return np.sin(a * (1.0 + number * s)), k, r, s


_MOVES = [
    _exchanged,
    _exchanged,
    _stencil,
    _summed,
    _gathered,
    _scattered,
    _largest,
    _smallest,
    _told,
    _scaled,
]
