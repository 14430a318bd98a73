"""Heat, 1,000,000 steps of 1000 points in 20 MB: seconds against a cost model, and peak memory.

    python -m benchmarks.heat

The model is advances * a + reverse steps * b, with the seconds per step of `store_all` over 1000
steps. The peak is that of a fresh process with a warm cache, less that of one with 1000 steps.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problems import Heat
from benchmarks.rows import Row, make_parser, run_script

MEMORY = "20 MB"
N_FEW = 1000
#: A sweep over 1000 steps takes less than a millisecond.
N_SHORT_RUNS = 200
TOLERANCE = 1e-8


def make_gradient(n_steps: int, **options: Any) -> Any:
    """Value, gradient and report of the initial state."""
    import backsweep as bs
    from benchmarks.programs import make_heat

    problem = Heat(n_steps=n_steps)
    _, loss = make_heat(problem, bs.Checkpointing(**options))
    gradient = bs.value_and_grad(loss, has_report=True)
    return lambda: gradient(problem.initial())


def exact_gradient(problem: Heat) -> np.ndarray:
    """Of the points between the held ends, by the sine transform that diagonalises the step."""
    from scipy.fft import dst, idst

    n_intervals = problem.n_points - 1
    k = np.arange(1, n_intervals)
    growth = (
        1 - 4 * problem.number * np.sin(np.pi * k / (2 * n_intervals)) ** 2
    ) ** problem.n_steps
    inner = slice(1, -1)
    final = idst(growth * dst(problem.initial()[inner], 1), 1)
    return idst(growth * dst(final - problem.target[inner], 1), 1)


def measure_step() -> tuple[float, float]:
    """Seconds of one advance and of one reverse step where every state is kept."""
    run = make_gradient(N_FEW, schedule="store_all")
    scans = [run()[2].scans[0] for _ in range(N_SHORT_RUNS)]
    advance = min(scan.forward_seconds for scan in scans) / N_FEW
    reverse = min(scan.reverse_seconds for scan in scans) / N_FEW
    return advance, reverse


def measure_forward_step(n_steps: int = 100 * N_FEW) -> float:
    """Seconds of one step of a scan that keeps nothing."""
    from benchmarks.programs import make_heat

    problem = Heat(n_steps=n_steps)
    final, _ = make_heat(problem)
    final(problem.initial())
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        final(problem.initial())
        seconds.append(time.perf_counter() - start)
    return min(seconds) / n_steps


def measure_seconds(repeats: int) -> Iterator[Row]:
    problem = Heat()
    run = make_gradient(problem.n_steps, memory=MEMORY)
    _, gradient, report = run()
    expected = exact_gradient(problem)
    error = np.linalg.norm(gradient[1:-1] - expected) / np.linalg.norm(expected)
    print(f"heat, {problem.n_steps} steps\n  differs from the exact gradient by {error:.1e}")
    if not error <= TOLERANCE:
        raise AssertionError(f"off by {error:.1e}, more than {TOLERANCE:.0e}: no time to measure")
    (scan,) = report.scans
    steps, seconds = [], []
    for _ in range(repeats):
        steps.append(measure_step())
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    a, b = (statistics.median(column) for column in zip(*steps, strict=True))
    keeps_nothing = measure_forward_step()
    median = statistics.median(seconds)
    work = f"heat, {problem.n_steps:,} steps, {MEMORY}: seconds"
    counts = f"{scan.n_snapshots} snapshots, {scan.n_advances:,} advances"
    for name, advance, goal in (
        ("of store_all", a, 1.3),
        ("of a scan that keeps nothing", keeps_nothing, None),
    ):
        predicted = scan.n_advances * advance + scan.n_reverses * b
        row = Row(
            work,
            f"measured / advances x a + reverse steps x b, a {name}",
            median / predicted,
            goal,
            seconds={"measured": median, "predicted": predicted},
            remark=f"{counts}, a = {advance * 1e6:.3f} us, b = {b * 1e6:.3f} us",
        )
        print(f"  {row}")
        yield row


def print_peak(n_steps: int) -> None:
    """Run once; print the peak of this process in bytes.

    `ru_maxrss` would do if it were not inherited through fork and exec: a process whose parent
    is larger reports its parent's peak. VmHWM is that of its own memory.
    """
    make_gradient(n_steps, memory=MEMORY)()
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert peak is not None
    print(int(peak[1]) * 1024)


def measure_peak(n_steps: int) -> float:
    """Peak resident memory of a fresh process, in MB."""
    command = [sys.executable, "-m", "benchmarks.heat", "--peak", str(n_steps)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output) / 1e6


def measure_memory(repeats: int) -> Iterator[Row]:
    many = Heat().n_steps
    peaks: dict[int, list[float]] = {N_FEW: [], many: []}
    for n_steps in peaks:
        measure_peak(n_steps)  # warms the cache
    for _ in range(repeats):
        for n_steps, found in peaks.items():
            found.append(measure_peak(n_steps))
    few_peak, many_peak = (statistics.median(found) for found in peaks.values())
    row = Row(
        f"heat, {many:,} steps, {MEMORY}: peak resident memory",
        f"less that of {N_FEW} steps, fresh processes",
        many_peak - few_peak,
        25,
        "MB",
        remark=f"{many_peak:.0f} MB - {few_peak:.0f} MB",
    )
    print(f"  {row}")
    yield row


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    yield from measure_seconds(arguments.repeat)
    yield from measure_memory(arguments.repeat)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--peak", type=int, metavar="STEPS", help="only print the peak of a run")
    peak_of = parser.parse_args().peak
    if peak_of is None:
        run_script(measure_rows, parser)
    else:
        print_peak(peak_of)
