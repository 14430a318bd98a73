"""First value and gradient of the acoustic problem after `import backsweep`, in fresh processes.

    python -m benchmarks.first_call

Each measurement makes an empty cache folder, and two processes that use it one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.problems import Acoustic
from benchmarks.rows import Row, make_parser, run_script

OBSERVED = "observed.npy"


def print_first_call(folder: Path) -> None:
    """Print the seconds of the first call, and how many sweeps it compiled."""
    problem = Acoustic()
    observed = np.load(folder / OBSERVED)
    arguments = problem.c2, observed
    _ = problem.sigma, problem.wavelet, problem.receivers  # cached from here on
    import backsweep as bs

    start = time.perf_counter()
    # It imports backsweep, so it stands after the clock only to show that this costs nothing.
    from benchmarks.programs import make_acoustic

    _, misfit = make_acoustic(problem)
    _, _, report = bs.value_and_grad(misfit, has_report=True)(*arguments)
    print(time.perf_counter() - start, report.n_compilations)


def run_process(folder: Path, cache: str) -> tuple[float, int]:
    """Seconds and compilations of the first call in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.first_call", "--child", str(folder)]
    # Numba's own folder too: else what it keeps beside backsweep's source would stay warm.
    environment = {**os.environ, "BACKSWEEP_CACHE_DIR": cache, "NUMBA_CACHE_DIR": f"{cache}/numba"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, n_compilations = done.stdout.split()
    return float(seconds), int(n_compilations)


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    found: dict[str, list[tuple[float, int]]] = {"empty": [], "warm": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / OBSERVED, Acoustic().observed)
        for turn in range(arguments.repeat):
            for column in found.values():
                column.append(run_process(folder, f"{name}/cache-{turn}"))
    print("first value and gradient")
    for (state, column), goal in zip(found.items(), (8.0, 1.0), strict=True):
        seconds = [seconds for seconds, _ in column]
        row = Row(
            "acoustic, first value and gradient after import",
            f"{state} cache",
            statistics.median(seconds),
            goal,
            "s",
            remark=f"{max(n for _, n in column)} compilations",
        )
        print(f"  {row} ({' '.join(f'{s:.2f}' for s in seconds)})")
        yield row


if __name__ == "__main__":
    parser = make_parser(__doc__, repeat=5)
    parser.add_argument("--child", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    child = parser.parse_args().child
    if child is None:
        run_script(measure_rows, parser)
    else:
        print_first_call(child)
