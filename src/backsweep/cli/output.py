"""What the root says: on a terminal a bar, in a log plain lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self, final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backsweep.closing import Closing
from backsweep.inverse.history import History, Row
from backsweep.runtime.checkpointing import format_bytes

console = Console(highlight=False, soft_wrap=True, markup=False)


@final
class EvaluationProgress(Closing):
    """Progress of an inversion.

    Parameters
    ----------
    n_evaluations : int
        At most so many come.
    """

    def __init__(self, n_evaluations: int) -> None:
        self.n = n_evaluations
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task("starting", total=n_evaluations)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def show(self, history: History) -> None:
        """Say what the last evaluation found."""
        number, row = len(history.rows), history.rows[-1]
        relative = f"misfit {_relative(row, history)} of the start"
        if row.stage > 0:
            relative += f" of stage {row.stage + 1}"
        if np.isinf(row.misfit):
            relative = "the simulation is unstable for this model: a shorter step"
        if self.bar is not None:
            self.bar.update(self.task, completed=number, description=relative)
            return
        compiling = row.cost.compile_seconds
        spent = f", {compiling:.1f} s of it compiling" if compiling >= 0.05 else ""
        console.print(
            f"evaluation {number:3d}/{self.n}: {relative}, gradient {row.gradient_norm:.3g}, "
            f"{row.cost.seconds:.2f} s{spent}"
        )


def print_summary(history: History, begin: float, n_ranks: int, n_threads: int) -> None:
    """What was found, what it cost, and what was saved against storing everything."""
    if not history.rows or history.last is None or history.best is None:
        return
    rows, cost = history.rows, history.last.cost
    last_stage = [r for r in rows if r.stage == rows[-1].stage]
    found = min(last_stage, key=lambda r: r.objective)
    stage = f" of stage {found.stage + 1}" if found.stage > 0 else ""
    before, after = history.model_error(history.described.start), history.model_error(history.best)
    off, off_after = (history.target_errors(p) for p in (history.described.start, history.best))
    kept = cost.snapshot_bytes_memory + cost.snapshot_bytes_disk
    saved = f", {cost.all_bytes / kept:.1f} times as much" if 0 < kept < cost.all_bytes else ""
    per_step = cost.n_advances / max(1, cost.n_steps)
    seconds = time.perf_counter() - begin
    print_rows(
        [
            ("misfit", f"{found.misfit:.6g}, {_relative(found, history)} of the start{stage}"),
            *(
                (name, f"relative error {error:.4g}, at the start {before[name]:.4g}")
                for name, error in after.items()
            ),
            *(
                (name, f"rms distance from its target {off_after[name]:.4g}, at the start {d:.4g}")
                for name, d in off.items()
            ),
            (
                "memory",
                f"{format_bytes(kept)} of snapshots per rank; every state of an item would take "
                f"{format_bytes(cost.all_bytes)}{saved}; peak {format_bytes(cost.peak_bytes)}",
            ),
            (
                "checkpoints",
                f"{cost.schedule}: {cost.n_advances} advances for {cost.n_steps} steps "
                f"({per_step:.2f} per step), {cost.n_reverses} reverse steps; {cost.executor} code",
            ),
            (
                "time",
                f"{seconds:.1f} s, {len(rows)} evaluations, the last in {cost.seconds:.2f} s; "
                f"{n_ranks} rank(s), {n_threads} thread(s) each",
            ),
            ("stopped", history.reason or history.status),
            (
                "fingerprints",
                f"of the last evaluation: value {history.last.value_fingerprint}, gradient "
                f"{history.last.gradient_fingerprint}",
            ),
        ]
    )


def _relative(row: Row, history: History) -> str:
    """To the first misfit of its stage: another stage compares other data."""
    first = next(r.misfit for r in history.rows if r.stage == row.stage)
    return f"{row.misfit / (first or 1):.4g}"


def print_rows(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"{name:<{width}}  {value}")
