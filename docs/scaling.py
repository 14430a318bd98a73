"""The predictions of scaling.md: rates measured here, a cluster that is assumed.

mpiexec -n 2 python docs/scaling.py            prints the tables (two minutes)
mpiexec -n 2 python docs/scaling.py --write    renews the page
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import backsweep as bs
from backsweep.api.scaling import Scaling
from backsweep.cli.scaling import file_operations
from backsweep.comm import PlannedComm, world
from backsweep.runtime.checkpointing import format_bytes
from backsweep.runtime.costs import Shots, predict_shots
from backsweep.runtime.machine import PARAMETERS, Machine, Measured, StepRates

HERE = Path(__file__).parent
LAPLACIAN = (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560)
EDGE = len(LAPLACIAN) - 1
RANKS_PER_NODE = 64
N_MEASURED = 5

ASSUMED = {
    "cores": 64,
    "memory_bytes": 256 * 10**9,
    "cache_bytes": 0,
    "node_bandwidth": 3e11,
    "network_seconds": 1.5e-6,
    "network_bandwidth": 1.25e10,
    "metadata_rate": 1.4e4,
}
"""Of a node and a network: see the page for where each comes from."""


def waves(shape, n_steps, n_receivers):
    """Misfit of acoustic waves of 8th order on a grid with a source and receivers in a line."""
    n = len(shape)
    inner = (slice(EDGE, -EDGE),) * n
    wavelet = np.sin(0.1 * np.arange(n_steps)).astype(np.float32)
    columns = np.linspace(EDGE, shape[-1] - 1 - EDGE, n_receivers).astype(np.int64)
    receivers = (*(np.full(n_receivers, EDGE + 2) for _ in shape[1:]), columns)

    def laplacian(u):
        total = n * LAPLACIAN[0] * u[inner]
        for k in range(1, EDGE + 1):
            for axis in range(n):
                for end in (-k, k):
                    where = list(inner)
                    where[axis] = slice(EDGE + end, shape[axis] - EDGE + end)
                    total = total + LAPLACIAN[k] * u[tuple(where)]
        return total

    def misfit(c2):
        def step(state, w):
            u, before = state
            after = 2 * u - before
            after[inner] += c2[inner] * laplacian(u)
            after[(EDGE,) * (n - 1) + (shape[-1] // 2,)] += w
            return (after, u), after[receivers]

        quiet = np.zeros_like(c2)
        return 0.5 * np.sum(bs.scan(step, (quiet, quiet), wavelet)[1] ** 2)

    return misfit


def model(shape):
    """Of which no rank holds more than its block."""
    return bs.BlockedArray(
        shape, np.float32, lambda box: np.full([s.stop - s.start for s in box], 0.1, np.float32)
    )


def measured_on(shape):
    """Of a small grid on all ranks, the best of some measurements: others may use the cores."""
    small = np.full(shape, 0.1, np.float32)
    found = bs.scaling(waves(shape, 64, 16), comm=world())
    every = [found(small).measured for _ in range(N_MEASURED)]
    better = {
        name: (min if name.endswith("_seconds") else max)(getattr(m.machine, name) for m in every)
        for name in PARAMETERS
    }
    steps = StepRates(
        min(m.steps[0].advance for m in every), min(m.steps[0].reverse for m in every)
    )
    return Measured(Machine(**better, assumed=every[0].machine.assumed), (steps,))


def on_cluster(measured):
    names = {*ASSUMED, *measured.machine.assumed}
    machine = replace(measured.machine, **ASSUMED, assumed=tuple(sorted(names)))
    return replace(measured, machine=machine)


def predicted(shape, n_steps, n_receivers, measured) -> Scaling:
    """A gradient on the cluster, cut along all axes."""
    cut = bs.Decomposition(shape, axes=range(len(shape)), comm=PlannedComm(1))
    found = bs.scaling(waves(shape, n_steps, n_receivers), decomposition=cut, measured=measured)
    return found(model(shape))


def row(what, prediction, base=None):
    """A line of the table; efficiency against another prediction."""
    p, nodes = prediction, prediction.nodes
    shares = sorted(p.terms, key=lambda name: -p.terms[name])
    terms = ", ".join(f"{name} {p.share(name):.0%}" for name in shares if p.share(name) >= 0.02)
    efficiency = ""
    if base is not None:
        ratio = base.seconds * base.nodes.n_ranks / (p.seconds * nodes.n_ranks)
        efficiency = f"{ratio:.2f}"
    room = "" if p.fits else " (too much)"
    seconds = f"{p.seconds:.3g}" if p.seconds < 1e4 else f"{p.seconds:.0f}"
    return (
        f"| {what} | {nodes.n_ranks} | {seconds} | +{p.first_seconds:.2g} | {efficiency} | "
        f"{format_bytes(p.memory_bytes)}{room} | {terms} | **{p.breaks_first}** |"
    )


def table(plane, volume):
    """Of one grid, then of shots."""
    lines = [
        "| work | ranks | seconds | first | efficiency | memory of a rank | terms | breaks first |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, found in (
        ("8192 x 8192, 2000 steps, 512 receivers", predicted((8192,) * 2, 2000, 512, plane)),
        (
            "1024 x 1024 x 1024, 2000 steps, 4096 receivers",
            predicted((1024,) * 3, 2000, 4096, volume),
        ),
    ):
        base = found.on(64, RANKS_PER_NODE)
        lines.append(row(what, base))
        lines += [row(what, found.on(n, RANKS_PER_NODE), base) for n in (512, 4096)]
    shot = predicted((1024, 1024), 4000, 512, plane)
    base = None
    for n, group in ((64, 1), (4096, 1), (4096, 8)):
        one = replace(shot, decomposition=None) if group == 1 else shot
        gradient = one.on(group, RANKS_PER_NODE, n_others=n - group)
        n_operations = file_operations(gradient.seconds, interval=60.0)
        shots = Shots(10_000, group, 8 * 1024**2, n_operations)
        found = predict_shots(shots, gradient, replace(gradient.nodes, n_ranks=n, n_others=0))
        what = f"10,000 shots of 1024 x 1024, 4000 steps, {group} rank(s) each"
        lines.append(row(what, found, base))
        base = base or found
    return "\n".join(lines)


def parameters(measured):
    rows = "\n".join(f"| {name} | {text} |" for name, text in measured.machine.rows())
    return f"| parameter | value |\n|---|---|\n{rows}"


def main():
    plane, volume = on_cluster(measured_on((1024, 1024))), on_cluster(measured_on((128,) * 3))
    if not world().is_root:
        return
    steps = "; ".join(
        f"{name}: {1e9 * m.steps[0].advance:.3g} ns forward, {1e9 * m.steps[0].reverse:.3g} ns back"
        for name, m in (("2-D", plane), ("3-D", volume))
    )
    rates = f"Core seconds per scalar operation: {steps}."
    text = "\n\n".join((parameters(plane), rates, table(plane, volume)))
    print(text)
    if "--write" in sys.argv:
        page = HERE / "scaling.md"
        pattern = re.compile(r"(<!-- predictions -->\n).*?(<!-- end -->)", re.S)
        page.write_text(pattern.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page.read_text()))


if __name__ == "__main__":
    main()
