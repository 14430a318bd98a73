"""Run under mpiexec by the tests of this folder: the root says what is wrong, or "right"."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from backsweep.comm import world
from partition import jobs
from partition.cases import CASES
from partition.comparing import GRID, check, cuts
from partition.randomly import random_case


def programs(comm, *names):
    """All that are compared, or some by name."""
    cases = [c for c in CASES if c.name in names or not names]
    assert cases, names
    return check(comm, cases)


def programs_in_turn(comm):
    """All, each on one of its cuts, which differ between numbers of ranks."""
    found = []
    for k, case in enumerate(CASES):
        axes = cuts(case.axes, comm.size, GRID)
        found.append(replace(case, axes=axes[(k + comm.size) % len(axes) :][:1]))
    return check(comm, found)


def random_programs(comm, first, last):
    """Those of some seeds, on grids of several shapes."""
    wrong = []
    for seed in range(int(first), int(last)):
        grid = (9 + seed % 5, 8 + seed % 7)
        wrong += check(comm, [random_case(seed)], grid)
    return wrong


def on_a_wide_grid(comm, name):
    """One that is wide enough for messages to travel while rows are computed."""
    (case,) = (c for c in CASES if c.name == name)
    return check(comm, [replace(case, axes=((0,),))], (120, 48))


def random_loops(comm, first, last):
    """The same with a loop in the step."""
    wrong = []
    for seed in range(int(first), int(last)):
        grid = (9 + seed % 5, 8 + seed % 7)
        wrong += check(comm, [random_case(seed, 2 + seed % 3)], grid)
    return wrong


if __name__ == "__main__":
    comm = world()
    job = globals().get(sys.argv[1]) or getattr(jobs, sys.argv[1])
    wrong = job(comm, *sys.argv[2:])
    if comm.is_root:
        print("\n".join(wrong) or f"right {comm.size}", flush=True)
    sys.exit(bool(wrong))
