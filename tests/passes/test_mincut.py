"""The minimum cut against the best of all subsets."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest

from backsweep.ir import ArrayType, Equation, Program, Var
from backsweep.passes.mincut import Keeping, cheapest_keeping
from backsweep.primitives import elementwise as ew

SCALAR = ArrayType((), np.dtype(np.float64))


@dataclass
class Case:
    """A program, what is there and what is wanted, with costs."""

    program: Program
    available: tuple[Var, ...]
    wanted: tuple[Var, ...]
    keeping: dict[Var, int | None]
    running: dict[int, int]

    def solve(self) -> Keeping:
        return cheapest_keeping(
            self.program,
            self.available,
            self.wanted,
            self.keeping.__getitem__,
            lambda e: self.running[id(e)],
        )

    def cost(self, kept: Iterable[Var]) -> float:
        """Of keeping these values and no others; infinite where something is then missing."""
        kept = set(kept)
        total = 0.0
        for v in kept:
            price = self.keeping[v]
            total += float("inf") if price is None else price
        made_by = {v: e for e in self.program.equations for v in e.outputs}
        done, left = {*kept, *self.available}, list(self.wanted)
        run: set[int] = set()
        while left:
            v = left.pop()
            if v in done:
                continue
            if v not in made_by:
                return float("inf")
            eqn = made_by[v]
            if id(eqn) not in run:
                run.add(id(eqn))
                total += self.running[id(eqn)]
                left += [a for a in eqn.inputs if isinstance(a, Var)]
        return total

    def best_cost(self) -> float:
        values = [v for v in self.keeping if v not in self.available]
        subsets = (c for n in range(len(values) + 1) for c in itertools.combinations(values, n))
        return min(map(self.cost, subsets))


def random_case(seed: int, n_equations: int = 7) -> Case:
    """Equations of one or two outputs; small costs, so that there are ties."""
    rng = random.Random(seed)
    inputs = tuple(Var(SCALAR, f"in{k}") for k in range(3))
    values, equations = list(inputs), []
    for k in range(n_equations):
        operands = tuple(rng.sample(values, rng.choice((1, 2))))
        outputs = tuple(Var(SCALAR, f"v{k}_{j}") for j in range(rng.choice((1, 1, 1, 2))))
        equations.append(Equation(ew.add, operands, {}, outputs))
        values += outputs
    wanted = tuple(rng.sample(values, 3))
    keeping: dict[Var, int | None] = {v: rng.randrange(12) for v in values}
    for v in rng.sample(values[3:], 2):
        keeping[v] = None
    running = {id(e): rng.choice((0, 1, 2, 5, 20)) for e in equations}
    available = inputs[: rng.randrange(2)]
    program = Program(inputs, tuple(equations), wanted)
    return Case(program, available, wanted, keeping, running)


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    case = random_case(seed)
    found = case.solve()
    assert found.cost == case.cost(found.kept) == case.best_cost()


def chain(keeping: list[int], running: list[int]) -> Case:
    """x -> v1 -> v2 ...; the last one is wanted."""
    values = [Var(SCALAR, f"v{k}") for k in range(len(keeping))]
    equations = tuple(Equation(ew.neg, (a,), {}, (b,)) for a, b in itertools.pairwise(values))
    program = Program((values[0],), equations, (values[-1],))
    costs = dict(zip(map(id, equations), running, strict=True))
    return Case(program, (), (values[-1],), dict(zip(values, keeping, strict=True)), costs)


@pytest.mark.parametrize(
    ("keeping", "running", "kept", "cost"),
    [
        ([8, 8, 8], [1, 1], ["v2"], 8),  # what is wanted is as small as all others
        ([8, 4, 8], [1, 1], ["v1"], 5),  # a smaller one, from which it is made again
        ([8, 4, 8], [1, 9], ["v2"], 8),  # ... unless that is dear
        ([2, 4, 8], [1, 1], ["v0"], 4),  # the state
        ([2, 4, 8], [1, 7], ["v2"], 8),
    ],
)
def test_chains(keeping: list[int], running: list[int], kept: list[str], cost: int) -> None:
    found = chain(keeping, running).solve()
    assert ([v.name for v in found.kept], found.cost) == (kept, cost)


def test_what_is_there_anyway_is_not_kept() -> None:
    case = chain([8, 8], [3])
    case.available = case.program.inputs
    assert case.solve() == Keeping((), 3)
    case.running[id(case.program.equations[0])] = 9
    assert case.solve() == Keeping(case.wanted, 8)


def test_one_value_instead_of_two() -> None:
    """Two wanted values that one smaller value gives: a mix of keeping and running."""
    x, y, a, b = (Var(SCALAR, name) for name in "xyab")
    first, second = Equation(ew.neg, (x,), {}, (a,)), Equation(ew.add, (x, y), {}, (b,))
    program = Program((x, y), (first, second), (a, b))
    case = Case(program, (), (a, b), {x: 4, y: 40, a: 5, b: 5}, {id(first): 2, id(second): 1})
    assert case.solve() == Keeping((a, b), 10)
    case.keeping[y] = 1
    assert case.solve() == Keeping((x, y), 8)


def test_capacities_beyond_64_bits() -> None:
    large = 10**25
    found = chain([large + 1, large, large + 5], [1, 1]).solve()
    assert ([v.name for v in found.kept], found.cost) == (["v1"], large + 1)


def test_long_programs() -> None:
    n = 3000
    found = chain([50, *[100] * n], [1] * n).solve()
    assert ([v.name for v in found.kept], found.cost) == ([f"v{n}"], 100)
    found = chain([50, *[100] * 49, *[60] * (n - 50), 1000], [1] * n).solve()
    assert ([v.name for v in found.kept], found.cost) == ([f"v{n - 1}"], 61)


def names_of_kept() -> str:
    return ";".join(
        ",".join(v.name for v in random_case(seed, 30).solve().kept) for seed in range(40)
    )


def test_no_order_of_hashing_matters() -> None:
    """Neither that of names nor that of addresses."""
    found = set()
    for hash_seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, __file__], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert found == {names_of_kept()}


if __name__ == "__main__":
    print(names_of_kept())
