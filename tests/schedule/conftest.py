"""Pairs of steps and snapshots that every schedule is tried on, and the published counts."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from marks import more

ORACLE = Path("/work/shared/data/revolve_oracle.csv")


def random_pairs(n_pairs: int, n_advances_per_step: int = 12) -> list[tuple[int, int]]:
    """Seeded pairs (n, s) up to (10,000, 200) whose schedules are not too long to execute."""
    from backsweep.schedule import extra_advances

    draw = random.Random(4)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < n_pairs:
        n = int(10 ** draw.uniform(0, 4))
        s = int(200 ** draw.uniform(0, 1))
        if extra_advances(n, s) <= n_advances_per_step * n:
            pairs.append((n, s))
    return pairs


SMALL = [(n, s) for n in range(201) for s in range(1, 31)]


def _sample() -> list[tuple[int, int]]:
    corners = [(n, s) for n in range(8) for s in range(1, 5)]
    return corners + random.Random(1).sample(SMALL, 300) + random_pairs(40)


@pytest.fixture(
    params=[
        pytest.param(_sample, id="sample"),
        more(lambda: SMALL, id="all-small"),
        more(lambda: random_pairs(500), id="random"),
    ]
)
def pairs(request: pytest.FixtureRequest) -> list[tuple[int, int]]:
    """Pairs (n, s): a sample, with ``make test-all`` all n <= 200, s <= 30 and 500 random."""
    return request.param()


@pytest.fixture(scope="session")
def oracle() -> list[dict[str, int]]:
    """Exact counts; a field that is not there was empty."""
    if not ORACLE.exists():
        pytest.skip(f"{ORACLE} is not on this machine")
    with ORACLE.open(newline="") as lines:
        return [{k: int(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
