"""Run under mpiexec by the tests of this folder: the root says what is wrong, or "right"."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from backsweep.comm import world
from collectives import broken, compiled, products, simulations, unequal


def products_of_each(comm):
    """Of each collective alone, to rounding."""
    return _compared(comm, products.single_maps(comm), slopes=True)


def products_of_random(comm, first, last):
    """Of random programs of some seeds."""
    return _compared(comm, [products.random_map(comm, k) for k in range(int(first), int(last))])


def _compared(comm, maps, slopes=False):
    wrong = []
    for m in maps:
        gap = products.gap(comm, m)
        if not gap <= 1e-13:
            wrong.append(f"{m.name} {m.dtype}: <Jv, w> and <v, J^T w> differ by {gap:.1e}")
        if slopes and not (gap := products.slope_gap(comm, m)) <= 1e-8:
            wrong.append(f"{m.name} {m.dtype}: Jv differs from the slope by {gap:.1e}")
    return wrong


if __name__ == "__main__":
    comm = world()
    name = sys.argv[1]
    modules = (simulations, broken, compiled, unequal)
    job = globals().get(name) or next(getattr(m, name) for m in modules if hasattr(m, name))
    wrong = job(comm, *sys.argv[2:])
    if comm.is_root:
        print("\n".join(wrong) or f"right {comm.size}", flush=True)
    sys.exit(bool(wrong))
