"""Measuring: contestants in turns, each in a process of its own, medians, one ratio.

A process each, because they disturb one another inside one: Devito's code flushes denormal numbers
in the thread that calls it and in no thread that Numba started before, JAX's 64-bit switch is
global, thread pools go on spinning, and memory that one keeps is missing for the next.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks import N_THREADS
from benchmarks.rows import Row

#: Does the work once and returns what is compared: nested tuples of arrays and numbers.
Work = Callable[[], Any]

PACKAGES = ("backsweep", "numpy", "numba", "llvmlite", "h5py", "jax", "devito")
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Contestant:
    """A name and how to prepare the work; `make` must be picklable, so a module's function.

    `tolerance` bounds the relative difference (2-norm) of its result from the first contestant's.
    """

    name: str
    make: Callable[[], Work]
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Result:
    """Seconds of one contestant: of the first run, compilation included, and of the others."""

    name: str
    first: float
    seconds: tuple[float, ...]
    value: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _serve(contestant: Contestant, connection: Connection) -> None:
    """The contestant's process: run once for each request, send seconds and perhaps the value."""
    try:
        work = contestant.make()
        while (wants_value := connection.recv()) is not None:
            gc.collect()
            start = time.perf_counter()
            value = work()
            seconds = time.perf_counter() - start
            connection.send((seconds, value if wants_value else None))
    except Exception:
        connection.send((None, traceback.format_exc()))


class _Runner:
    """The parent's end of one contestant's process."""

    def __init__(self, contestant: Contestant) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = contestant.name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(contestant, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, wants_value: bool = False) -> tuple[float, Any]:
        """Let the contestant work once; its seconds and, if asked for, its result."""
        time.sleep(PAUSE_SECONDS)
        self.connection.send(wants_value)
        seconds, value = self.connection.recv()
        if seconds is None:
            raise RuntimeError(f"{self.name} failed:\n{value}")
        return seconds, value

    def close(self) -> None:
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join()


def measure(contestants: Sequence[Contestant], repeats: int = 5) -> list[Result]:
    """Check that all agree with the first, then time them in turns."""
    runners = [_Runner(contestant) for contestant in contestants]
    try:
        firsts = [runner.run(wants_value=True) for runner in runners]
        for contestant, (_, value) in zip(contestants, firsts, strict=True):
            check_agreement(contestant, value, contestants[0].name, firsts[0][1])
        seconds: list[list[float]] = [[] for _ in runners]
        for turn in range(repeats):
            # Whoever runs after a slow one finds other caches: so the order rotates.
            for k in range(len(runners)):
                i = (k + turn) % len(runners)
                seconds[i].append(runners[i].run()[0])
    finally:
        for runner in runners:
            runner.close()
    return [
        Result(contestant.name, first, tuple(times), value)
        for contestant, (first, value), times in zip(contestants, firsts, seconds, strict=True)
    ]


def flatten(value: Any) -> Iterator[np.ndarray]:
    """The arrays of nested tuples, lists and dictionaries, in float64 or complex128."""
    if isinstance(value, dict):
        value = tuple(value[key] for key in sorted(value))
    if isinstance(value, tuple | list):
        for item in value:
            yield from flatten(item)
    elif value is not None:
        array = np.asarray(value)
        yield array.astype(np.result_type(array.dtype, np.float64))


def difference(value: Any, reference: Any) -> float:
    """The largest relative difference (2-norm) between corresponding arrays."""
    pairs = zip(flatten(value), flatten(reference), strict=True)
    return max((float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs), default=0.0)


def check_agreement(contestant: Contestant, value: Any, name: str, reference: Any) -> None:
    """Print how far a result is from the reference; refuse more than the tolerance."""
    found = difference(value, reference)
    print(f"  {contestant.name}: differs from {name} by {found:.1e}")
    if not found <= contestant.tolerance:
        raise AssertionError(
            f"{contestant.name} differs from {name} by {found:.2e}, "
            f"more than {contestant.tolerance:.0e}: the times mean nothing"
        )


def report(results: Sequence[Result]) -> None:
    """One line per contestant, with the ratio of the first one's time to its own."""
    ours = results[0]
    for result in results:
        times = " ".join(f"{seconds:.3f}" for seconds in result.seconds)
        print(
            f"  {result.name:32s} median {result.median:8.4f} s   "
            f"{ours.name} / this = {ours.median / result.median:6.3f}   "
            f"(first {result.first:.2f} s; {times})"
        )


def report_ratio(
    work: str, results: Sequence[Result], ours: str, others: Sequence[str], goal: float | None
) -> Row:
    """A row of the table: ours against the fastest of the others, printed and returned."""
    by_name = {result.name: result for result in results}
    compared = [by_name[name] for name in others]
    fastest = min(compared, key=lambda result: result.median)
    row = Row(
        work,
        f"{ours} / {fastest.name}",
        by_name[ours].median / fastest.median,
        goal,
        seconds={result.name: result.median for result in (by_name[ours], *compared)},
    )
    print(f"  {row}")
    return row


def describe_machine() -> str:
    """Processor, cores, threads and versions, for the head of every printed table."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    model = re.search(r"Model name:\s*(.+)", text)
    identity = " ".join(re.findall(r"(?:CPU family|Model|Stepping):\s*\d+", text))
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return (
        f"{model[1] if model else platform.processor()} ({' '.join(identity.split())}), "
        f"{os.cpu_count()} cores, {N_THREADS} threads each; "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def run_row(title: str, contestants: Sequence[Contestant], repeats: int = 5) -> list[Result]:
    """Title, agreement and times of one row of the table."""
    print(title)
    results = measure(contestants, repeats)
    report(results)
    return results
