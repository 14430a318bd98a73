"""The command `plan --measure`: seconds of a run on any number of ranks, and what breaks first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backsweep.api.scaling import Scaling, scaling
from backsweep.cli.job import Job, open_job
from backsweep.cli.output import console, print_rows
from backsweep.cli.plans import loss_of_item
from backsweep.comm import Decomposition, Groups, agreement
from backsweep.errors import RunFileError
from backsweep.inverse.arrays import wide
from backsweep.inverse.evaluate import ranks_of_item
from backsweep.inverse.invert import check_inversion
from backsweep.runtime.checkpointing import default_checkpointing, format_bytes
from backsweep.runtime.costs import COMPUTE, Prediction, Shots, n_groups, predict_shots
from backsweep.runtime.machine import Measured

FILE_OPERATIONS = 4
"""Files and folders made, named or removed for an item of a run that can be resumed (counted)."""

POINT_OPERATIONS = 6
"""So, for each durable point within an item."""


@dataclass(frozen=True)
class Asked:
    """Options of the command.

    Attributes
    ----------
    measure : bool
    machine : Path, optional
        Parameters that were measured before.
    ranks : str
        Numbers, with commas between them; empty: as many as there are.
    ranks_per_node, threads_per_rank : int, optional
    shots : int, optional
        Instead of the number of the run file's items.
    save : Path, optional
        File for the parameters.
    sweep : Path, optional
        Refused: a picture is of the plan.
    """

    measure: bool = False
    machine: Path | None = None
    ranks: str = ""
    ranks_per_node: int | None = None
    threads_per_rank: int | None = None
    shots: int | None = None
    save: Path | None = None
    sweep: Path | None = None

    @property
    def is_asked(self) -> bool:
        """Whether anything but the plan is asked for."""
        return replace(self, sweep=None) != Asked()

    def check(self) -> None:
        """Raise RunFileError where options contradict each other."""
        if self.measure and self.machine is not None:
            raise RunFileError("--measure and --machine: parameters are measured or read, not both")
        if not self.measure and self.machine is None:
            raise RunFileError(
                "--ranks, --ranks-per-node, --threads-per-rank, --shots and --save go with "
                "--measure, or with --machine and a file that --save wrote"
            )
        if self.sweep is not None:
            raise RunFileError(
                f"--sweep {self.sweep} is a picture of the plan: leave --measure out"
            )
        if self.save is not None and not self.measure:
            raise RunFileError(f"--save {self.save}: nothing is measured; give --measure")
        if self.save is not None and not self.save.absolute().parent.is_dir():
            raise RunFileError(f"--save {self.save}: there is no folder {self.save.parent}")
        for name in ("ranks_per_node", "threads_per_rank", "shots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise RunFileError(f"--{option} {value}: a whole number of at least 1 is needed")

    def numbers(self, present: int) -> list[int]:
        """Of ranks, those asked for."""
        texts = [text.strip() for text in self.ranks.split(",")] if self.ranks else [str(present)]
        if not all(text.isdecimal() and int(text) > 0 for text in texts):
            raise RunFileError(
                f"--ranks {self.ranks}: whole numbers of at least 1 are needed, such as 1,64,4096"
            )
        return [int(text) for text in texts]


def print_scaling(path: Path, changes: Sequence[str], asked: Asked) -> None:
    """The command `plan --measure`. Collective: every rank must call."""
    job = open_job(path, changes)
    measured: Measured | None = None
    with agreement(job.comm):
        asked.check()
        numbers = asked.numbers(job.comm.size)
        check_inversion(job.described, job.run.inversion())
        n_shots = asked.shots or len(job.problem.items)
        for n in numbers:
            n_groups(n, ranks_of_item(job.run.ranks_per_shot, n, n_shots), n_shots)
        if asked.machine is not None:
            measured = Measured.read(asked.machine)
    with default_checkpointing(job.checkpointing):
        found = scaling(
            loss_of_item(job),
            decomposition=_blocks(job, n_shots, [*numbers, job.comm.size]),
            comm=job.comm,
            measured=measured,
            folder=job.checkpointing.snapshot_folder or ".",
        )(job.described.start)
    if not job.comm.is_root:
        return
    if asked.save is not None:
        found.measured.write(asked.save)
    _print_parameters(found, asked)
    n_evaluations = sum(stage.evaluations for stage in job.run.inversion().stages)
    console.print(f"\npredicted for {n_shots} item(s), {n_evaluations} evaluation(s):")
    for n in numbers:
        _print_prediction(*_predict(job, found, asked, n), n_evaluations)


def _predict(job: Job, found: Scaling, asked: Asked, n: int) -> tuple[Prediction, Prediction]:
    """A gradient of one item, and an evaluation of all, by a job of n ranks."""
    n_shots = asked.shots or len(job.problem.items)
    group = ranks_of_item(job.run.ranks_per_shot, n, n_shots)
    with default_checkpointing(job.run.checkpointing.request()):
        # Alone a rank cuts nothing.
        own = replace(found, decomposition=None) if group == 1 else found
        gradient = own.on(
            group,
            asked.ranks_per_node,
            n_others=n - group,
            threads=asked.threads_per_rank or 0,
        )
    n_bytes = sum(wide(value).nbytes for value in job.described.start.values())
    n_operations = file_operations(gradient.seconds, job.run.checkpointing.interval)
    if not job.run.checkpointing.resume:
        n_operations = 0
    nodes = replace(gradient.nodes, n_ranks=n, n_others=0)
    shots = Shots(n_shots, group, n_bytes, n_operations)
    return gradient, predict_shots(shots, gradient, nodes)


def file_operations(seconds: float, interval: float) -> int:
    """Of an item that takes so long, with a durable point after each interval [s]."""
    return FILE_OPERATIONS + POINT_OPERATIONS * int(seconds / interval)


def _blocks(job: Job, n_shots: int, numbers: Sequence[int]) -> Decomposition | None:
    """How a grid is cut, if any number of ranks asks for it. Collective: every rank must call."""
    asked = job.run.ranks_per_shot
    if all(ranks_of_item(asked, n, n_shots) == 1 for n in numbers):
        return None
    group = ranks_of_item(asked, job.comm.size, n_shots)
    return Decomposition(job.described.grid(), comm=Groups.of(job.comm, group).own)


def _print_parameters(found: Scaling, asked: Asked) -> None:
    source = f"from {asked.machine}" if asked.machine else "measured now"
    console.print(f"parameters, {source}:")
    rows = found.measured.machine.rows()
    for number, rates in enumerate(found.measured.steps):
        text = f"{1e9 * rates.advance:.3g} ns forward, {1e9 * rates.reverse:.3g} ns reversed"
        rows.append((f"scan {number}", f"{text}, per scalar operation and core"))
    rows.append(("trace", f"{1e3 * found.trace_seconds:.3g} ms"))
    if asked.measure:
        compiling = found.compile_seconds
        text = f"{compiling:.3g} s" if compiling >= 0.05 else "from the cache"
        rows.append(("compile", f"{text}; each shape of a block needs its own code"))
    print_rows([(f"  {name}", text) for name, text in rows])


def _print_prediction(gradient: Prediction, evaluation: Prediction, n_evaluations: int) -> None:
    nodes = evaluation.nodes
    terms = sorted(evaluation.terms.items(), key=lambda term: -term[1])
    shares = ", ".join(
        f"{name} {s:.3g} s ({evaluation.share(name):.0%})"
        for name, s in terms
        if evaluation.share(name) >= 0.005
    )
    hours = n_evaluations * evaluation.seconds / 3600
    room = "" if evaluation.fits else ": too little in a node"
    n_jobs = math.ceil(hours / nodes.machine.job_hours)
    jobs = f", {n_jobs} jobs" if n_jobs > 1 else ""
    group = gradient.nodes.n_ranks
    more = gradient.first_seconds
    first = f"; the first one {more:.2g} s more, and compiling" if more > 0 else ""
    print_rows(
        [
            (f"{nodes.n_ranks} rank(s)", f"{nodes.on_node} on a node, {group} for an item"),
            ("  a gradient", f"{gradient.seconds:.3g} s{first}"),
            ("  an evaluation", f"{evaluation.seconds:.3g} s: {shares}"),
            ("  the run", f"{hours:.2g} h{jobs}"),
            ("  memory", f"{format_bytes(evaluation.memory_bytes)} of a rank{room}"),
            ("  breaks first", _verdict(evaluation)),
        ]
    )


def _verdict(evaluation: Prediction) -> str:
    name = evaluation.breaks_first
    share = evaluation.share(name)
    largest = max(evaluation.terms, key=lambda term: evaluation.terms[term])
    if largest == COMPUTE and share:
        return f"{name} ({share:.0%}); computing is most of it"
    return f"{name} ({share:.0%})" if share else name
