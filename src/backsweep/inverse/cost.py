"""What an evaluation took."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.runtime.report import Report


@dataclass(frozen=True)
class Cost:
    """What an evaluation took, all ranks together.

    Attributes
    ----------
    seconds : float
        On the root's clock.
    n_steps, n_advances, n_reverses : int
    snapshot_bytes_memory, snapshot_bytes_disk : int
        The most that one rank held at a time.
    all_bytes : int
        What the states of one item's scans would take, the most of any item.
    peak_bytes : int
        Peak resident memory of a rank since its start.
    compile_seconds : float
        The most of any rank.
    """

    seconds: float = 0.0
    n_steps: int = 0
    n_advances: int = 0
    n_reverses: int = 0
    snapshot_bytes_memory: int = 0
    snapshot_bytes_disk: int = 0
    all_bytes: int = 0
    peak_bytes: int = 0
    compile_seconds: float = 0.0
    schedule: str = ""
    executor: str = ""


def counts_of(report: Report) -> np.ndarray:
    """Steps, advances and reverse steps of an item, which are added up along the tree."""
    names = ("n_steps", "n_advances", "n_reverses")
    return np.array([sum(getattr(s, name) for s in report.scans) for name in names], np.int64)


def cost_of(report: Report) -> Cost:
    """Of one item, without what `counts_of` counts."""

    def total(name: str) -> int:
        return sum(getattr(scan, name) for scan in report.scans)

    return Cost(
        snapshot_bytes_memory=total("snapshot_bytes_memory"),
        snapshot_bytes_disk=total("snapshot_bytes_disk"),
        all_bytes=total("all_bytes"),
        compile_seconds=report.compile_seconds,
        schedule=", ".join(dict.fromkeys(scan.schedule for scan in report.scans)),
        executor=", ".join(dict.fromkeys(scan.executor for scan in report.scans)),
    )


def together(costs: Sequence[Cost]) -> Cost:
    """The most of any, of what is no count."""

    def most(name: str) -> Any:
        return max((getattr(c, name) for c in costs), default=0)

    def first(name: str) -> str:
        return next((text for c in costs if (text := getattr(c, name))), "")

    return Cost(
        snapshot_bytes_memory=most("snapshot_bytes_memory"),
        snapshot_bytes_disk=most("snapshot_bytes_disk"),
        all_bytes=most("all_bytes"),
        peak_bytes=max(most("peak_bytes"), peak_bytes()),
        compile_seconds=most("compile_seconds"),
        schedule=first("schedule"),
        executor=first("executor"),
    )


def peak_bytes() -> int:
    """Peak resident memory of this rank since its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
