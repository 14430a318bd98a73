"""The commands `gradient` and `reduce`: one gradient, by one job or by the jobs of an array."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backsweep.cli import interrupt
from backsweep.cli.commands import model_parameters
from backsweep.cli.inversion import is_begun
from backsweep.cli.job import Job, open_job
from backsweep.cli.output import console, print_rows
from backsweep.cli.plans import print_memory
from backsweep.cli.results import check_target, origin, run_attributes
from backsweep.cli.runfile import problem_identity
from backsweep.comm import agreement
from backsweep.comm.tree import Node, Terms, items_of_rank
from backsweep.errors import RunFileError, Stopped
from backsweep.inverse.cost import Cost
from backsweep.inverse.evaluate import Evaluation, Evaluator, evaluation_of
from backsweep.inverse.history import History
from backsweep.inverse.inversion import Stage
from backsweep.inverse.invert import check_inversion
from backsweep.inverse.parts import (
    Part,
    PartFile,
    add_parts,
    gradient_variables,
    identity_of_gradient,
    partial_gradient,
    write_part,
)
from backsweep.inverse.problem import Parameters
from backsweep.runtime import stop
from backsweep.storage.results import write_result


@dataclass(frozen=True)
class _Wanted:
    """What is to be added up, and where it goes."""

    job: Job
    items: range
    is_part: bool
    model: str
    parameters: Parameters
    number: int
    stage: Stage
    target: Path

    def identity(self) -> dict[str, str]:
        job = self.job
        found = identity_of_gradient(job.described, self.parameters, self.number, self.stage)
        return found | problem_identity(job.run, job.folders)

    def save(self, nodes: Mapping[Node, Terms], cost: Cost) -> None:
        history = History(self.job.described)
        history.add_model(self.parameters)
        frame = {k: v for k, v in history.variables().items() if "evaluation" not in v.dims}
        part = Part(
            self.items,
            len(self.job.problem.items),
            self.identity(),
            self.number,
            tuple(self.parameters),
            nodes,
            cost,
            frame,
            run_attributes(self.job) | {"of_model": self.model},
        )
        if self.is_part:
            write_part(self.target, part)
            share = f"items {_text(part.items)} of {part.n_items}, {cost.seconds:.2f} s"
            print_rows([("part", share), ("result", self.target.resolve())])
        else:
            (total,) = nodes.values()
            _write_gradient(self.target, part, evaluation_of(part.names, total, cost), {})


def run_gradient(
    path: Path,
    changes: Sequence[str],
    items: str,
    model: str,
    stage: int,
    output: Path | None,
    overwrite: bool,
    fresh: bool,
) -> None:
    """The command `gradient`. Collective: every rank must call.

    Raises
    ------
    Stopped
        On all ranks, when SIGUSR1 or SIGTERM came to one of them.
    """
    with ExitStack() as stack:
        job = open_job(path, changes, lambda comm: stack.enter_context(stop.watching(comm)))
        with agreement(job.comm):
            wanted = _wanted(job, items, model, stage, output)
            request = job.within(job.run.checkpointing.resumable(wanted.target, fresh))
            shared = job.run.ranks_per_shot
            evaluator = Evaluator(job.described, job.comm, request, shared, wanted.items)
            if job.comm.is_root:
                check_target(wanted.target, overwrite or is_begun(request))
        if job.comm.is_root:
            print_memory(job)
        try:
            partial_gradient(
                evaluator,
                wanted.parameters,
                wanted.stage,
                checkpointing=request,
                identity=lambda: wanted.identity() | {"items": _text(wanted.items)},
                on_end=wanted.save,
                say=console.print,
            )
        except Stopped as stopped:
            if not request.resume:
                stopped.code = interrupt.exit_code(stopped.signal_name)
            elif job.comm.is_root:
                console.print(f"the same command goes on from {request.directory}")
            raise


def _wanted(job: Job, which: str, model: str, stage: int, output: Path | None) -> _Wanted:
    """What the arguments of `gradient` mean for a run."""
    n = len(job.problem.items)
    items, inversion = parse_items(which, n), job.run.inversion()
    stages = inversion.stages
    if not 1 <= stage <= len(stages):
        raise RunFileError(f"--stage {stage}: the run file has the stages 1 to {len(stages)}")
    check_inversion(job.described, inversion)
    parameters = model_parameters(job, model)
    job.described.check(parameters)
    default = f"part-{items.start}-{items.stop}.h5" if which else "gradient.h5"
    target = output or Path(default)
    setting = stages[stage - 1]
    return _Wanted(job, items, bool(which), model, parameters, stage - 1, setting, target)


def parse_items(text: str, n: int) -> range:
    """The items that are meant by "FIRST:END", "NUMBER", "K/N" or an empty text.

    Raises
    ------
    RunFileError

    Examples
    --------
    >>> parse_items("3:5", 9), parse_items("2/4", 9), parse_items("", 9)
    (range(3, 5), range(2, 4), range(0, 9))
    """
    if not text:
        return range(n)
    match = re.fullmatch(r"(?:(\d+):(\d+)|(\d+)/(\d+)|(\d+))", text)
    if match is None:
        raise RunFileError(
            f"--items {text}: write FIRST:END (without END), one number, or K/N for the K-th of N "
            "equal shares"
        )
    first, end, k, n_shares, one = (None if g is None else int(g) for g in match.groups())
    if k is not None and n_shares is not None:
        if not 1 <= k <= n_shares <= n:
            raise RunFileError(
                f"--items {text}: K is 1 to N, and N at most {n}, the number of items"
            )
        return items_of_rank(n, k - 1, n_shares)
    found = range(one, one + 1) if one is not None else range(first or 0, end or 0)
    if not (len(found) and found.stop <= n):
        raise RunFileError(f"--items {text}: the items are numbered 0 to {n - 1}")
    return found


def _text(items: range) -> str:
    return f"{items.start}:{items.stop}"


def _write_gradient(
    target: Path, part: Part, evaluation: Evaluation, attributes: Mapping[str, Any]
) -> None:
    cost = evaluation.cost
    found = dict(part.attributes) | {
        "status": "finished",
        "value_fingerprint": evaluation.value_fingerprint,
        "gradient_fingerprint": evaluation.gradient_fingerprint,
        "schedule": cost.schedule,
        "executor": cost.executor,
    }
    write_result(target, gradient_variables(part, evaluation), found | dict(attributes))
    unstable = "" if np.isfinite(evaluation.value) else ": the simulation is unstable"
    norms = {name: np.linalg.norm(g.ravel()) for name, g in evaluation.gradient.items()}
    print_rows(
        [
            ("misfit", f"{evaluation.value:.6g}, of {part.n_items} items{unstable}"),
            *((f"gradient of {name}", f"norm {norm:.6g}") for name, norm in norms.items()),
            ("time", f"{cost.seconds:.2f} s"),
            (
                "fingerprints",
                f"value {evaluation.value_fingerprint}, gradient {evaluation.gradient_fingerprint}",
            ),
            ("result", target.resolve()),
        ]
    )


def reduce_parts(paths: Sequence[Path], output: Path, overwrite: bool) -> None:
    """The command `reduce`, on one process."""
    check_target(output, overwrite)
    evaluation, first = add_parts([PartFile(path) for path in paths])
    _write_gradient(output, first, evaluation, origin() | {"parts": len(paths)})
