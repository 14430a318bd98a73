"""Random programs as steps of a scan."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import backsweep as bs
import programs

N_STEPS = 4
SOME = bs.Checkpointing(snapshots=2)


def random_program(seed: int, kinds: Sequence[str], n: int = 8) -> Any:
    """Statements as Hypothesis would draw them, from a seed."""
    rng = random.Random(seed)
    draw = lambda: tuple(rng.randrange(12) for _ in range(12))  # noqa: E731
    return [(rng.choice(list(kinds)), draw()) for _ in range(n)]


def make_step(program: Any) -> Callable[..., Any]:
    """The program works on the carry in place; what else it leaves is recorded."""

    def step(carry: Any, x: Any) -> Any:
        arrays = [c * 0.5 + 0.25 * x for c in carry]
        values = programs.run(program, *arrays)
        records = [np.sum(v) for v in values[3:]]
        return tuple(arrays), records

    return step


def make_loss(program: Any, weights: Sequence[Any], checkpointing: Any = None) -> Any:
    """A scalar of everything that a scan of the program leaves."""

    def loss(*init: Any) -> Any:
        xs = np.linspace(-0.5, 0.75, N_STEPS).astype(init[0].dtype)
        carry, records = bs.scan(make_step(program), init, xs, checkpointing=checkpointing)
        total = sum(np.sum(w * c) for w, c in zip(weights, carry, strict=True))
        return total + sum(np.sum(r) for r in records)

    return loss
