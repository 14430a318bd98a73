"""Misfit and gradient of some items, computed by a job of its own, and the sum of such parts.

A part holds nodes of the tree of all items (`comm.tree`), so that the sum of all parts has the
bits of one job, however the items were divided. Its file is one of `storage.points`: every byte
has a checksum, h5py alone reads it, nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from backsweep.comm import TreeSum
from backsweep.comm.tree import Node, Terms
from backsweep.errors import PartError, ResultError, SnapshotError
from backsweep.inverse.cost import Cost, together
from backsweep.inverse.evaluate import Evaluation, Evaluator, evaluation_of
from backsweep.inverse.history import Row, columns
from backsweep.inverse.identity import difference, identity_of_problem, text_of
from backsweep.inverse.inversion import Stage
from backsweep.inverse.problem import Described, Parameters
from backsweep.inverse.recording import recording
from backsweep.inverse.replay import checksum_of
from backsweep.inverse.under_way import UnderWay
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.storage.files import reason, remove_temporaries
from backsweep.storage.manifest import hash_identity
from backsweep.storage.points import ArrayFile, write_arrays
from backsweep.storage.results import Attribute, Variable

_MARK = "part of a gradient, version 1: "
_FRAME = "frame "


@dataclass(frozen=True)
class Part:
    """What a job has added up.

    Attributes
    ----------
    items : range
    n_items : int
        Of the problem.
    identity : mapping of str to str
        Equal in all parts of one gradient.
    stage : int
    names : tuple of str
        Of the parameters.
    nodes : mapping of (level, number) to arrays
    cost : Cost
    frame : mapping of str to Variable
        What stands beside the gradient in its result file: the model, coordinates.
    attributes : mapping
        Of that file.
    """

    items: range
    n_items: int
    identity: Mapping[str, str]
    stage: int
    names: tuple[str, ...]
    nodes: Mapping[Node, Terms]
    cost: Cost
    frame: Mapping[str, Variable]
    attributes: Mapping[str, Attribute]


def identity_of_gradient(
    described: Described, parameters: Parameters, number: int, stage: Stage
) -> dict[str, str]:
    """Labels and texts of all that decides what a gradient is, as far as it can be told."""
    found = identity_of_problem(described)
    found |= {f"model of {name}": text_of(value) for name, value in parameters.items()}
    return found | {f"stages.{number}.{k}": text_of(v) for k, v in stage.settings.items()}


def partial_gradient(
    evaluator: Evaluator,
    parameters: Parameters,
    stage: Stage,
    *,
    checkpointing: Checkpointing,
    identity: Callable[[], Mapping[str, str]],
    on_end: Callable[[Mapping[Node, Terms], Cost], None],
    say: Callable[[str], None],
) -> None:
    """Add up the evaluator's items. Collective: every rank must call.

    Parameters
    ----------
    evaluator : Evaluator
    parameters : dict of ndarray
    stage : Stage
    checkpointing : Checkpointing
        With `resume` what is done is kept in `directory` until the end.
    identity : callable
        By what it is known, that of the items included. Called on the root.
    on_end : callable
        Called on the root with the sums, before what is kept is removed.
    say : callable
        Told on the root, in a sentence, what is resumed.

    Raises
    ------
    Stopped
        On all ranks, when SIGUSR1 or SIGTERM came to one of them and `resume` is set.
    ResumeError
        If the directory holds something else, or another process uses it.
    """
    comm = evaluator.comm
    with recording(checkpointing, comm, identity) as folder:
        evaluator.set_stage(dict(stage.settings))
        under_way = None
        if folder is not None:
            folder.name()
            checksum = checksum_of("evaluate", 0, [parameters])
            under_way = UnderWay.find(folder.directory / f"call-00000000-{checksum}")
            folder.remove_folders(but=under_way.folder)
            if found := _found(under_way, evaluator):
                say(found)
        sums = evaluator.partial_sums(parameters, comm.broadcast(under_way))
        if sums is not None:
            on_end(*sums)
        if folder is not None:
            folder.clear()


def _found(under_way: UnderWay, evaluator: Evaluator) -> str:
    done = len(under_way.items(len(evaluator.problem.items)))
    begun = len(list(under_way.folder.glob("item-*")))
    if not (done or begun):
        return ""
    n = len(evaluator.items)
    return f"resuming: {done} of {n} items done, {begun} begun ({under_way.folder.parent})"


# --------------------------------------------------------------------------- files


def write_part(path: Path, part: Part) -> None:
    """Write a part durably, or replace it.

    Raises
    ------
    ResultError
        If it cannot be written; the file that was there before stays.
    """
    arrays = {_name(node, j): a for node, own in part.nodes.items() for j, a in enumerate(own)}
    arrays |= {f"{_FRAME}{name}": np.asarray(v.values) for name, v in part.frame.items()}
    about = {
        "items": [part.items.start, part.items.stop],
        "n_items": part.n_items,
        "identity": dict(part.identity),
        "stage": part.stage,
        "names": list(part.names),
        "nodes": [[*node, len(own)] for node, own in part.nodes.items()],
        "cost": asdict(part.cost),
        "frame": {name: [v.dims, v.unit, v.long_name] for name, v in part.frame.items()},
        "attributes": dict(part.attributes),
    }
    program = _MARK + hash_identity(part.identity)
    remove_temporaries(path)
    try:
        write_arrays(path, arrays, about, program=program, number=part.items.start, what="result")
    except OSError as error:
        raise ResultError(f"the part {path} could not be written: {reason(error)}") from error


def _name(node: Node, number: int) -> str:
    return f"{node[0]}.{node[1]}.{number}"


@final
class PartFile:
    """A part on disk, all of it verified; its sums are read when they are needed.

    Raises
    ------
    PartError
        If the file is missing, damaged, or no part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = ArrayFile(path)
            self._file.verify()
        except SnapshotError as error:
            raise PartError(
                f"{error}; parts of a gradient are what `backsweep gradient RUN.toml --items "
                "FIRST:END` writes"
            ) from error
        if not self._file.program.startswith(_MARK):
            raise PartError(f"{path} is no part of a gradient: it holds something else")
        about = self._file.about
        self.items = range(*about["items"])
        self.n_items: int = about["n_items"]
        self.identity: dict[str, str] = about["identity"]

    def read(self) -> Part:
        """All of it."""
        file, about = self._file, self._file.about
        return Part(
            self.items,
            self.n_items,
            self.identity,
            about["stage"],
            tuple(about["names"]),
            {
                (level, k): [file.read(_name((level, k), j)) for j in range(n_terms)]
                for level, k, n_terms in about["nodes"]
            },
            Cost(**about["cost"]),
            {
                name: Variable(file.read(f"{_FRAME}{name}"), tuple(dims), unit, long_name)
                for name, (dims, unit, long_name) in about["frame"].items()
            },
            about["attributes"],
        )


# --------------------------------------------------------------------------- the sum


def check_parts(files: Sequence[PartFile]) -> None:
    """Refuse parts of different gradients, and items that are there twice or not at all.

    Raises
    ------
    PartError
    """
    first, owners = files[0], dict[int, Path]()
    for file in files:
        if labels := difference(first.identity, file.identity):
            label = labels[0]
            was, now = (
                repr(f.identity[label]) if label in f.identity else "absent" for f in (first, file)
            )
            more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
            raise PartError(
                f"{file.path} is a part of another gradient than {first.path}: {label!r} is "
                f"{now}, there {was}{more}"
            )
        for k in file.items:
            if k in owners:
                raise PartError(f"item {k} is in {owners[k]} and in {file.path}: give one of them")
            owners[k] = file.path
    missing = [k for k in range(first.n_items) if k not in owners]
    if missing:
        raise PartError(
            f"{len(missing)} of {first.n_items} items are in none of the {len(files)} part(s): "
            f"{_ranges(missing)}"
        )


def _ranges(numbers: Iterable[int]) -> str:
    """As they are written after --items."""
    found: list[list[int]] = []
    for k in numbers:
        if found and found[-1][1] == k:
            found[-1][1] = k + 1
        else:
            found.append([k, k + 1])
    return ", ".join(f"{a}:{b}" for a, b in found)


def add_parts(files: Sequence[PartFile]) -> tuple[Evaluation, Part]:
    """The whole gradient, and the first part for what stands beside it.

    Raises
    ------
    PartError
        If they do not make up a whole one.
    """
    check_parts(files)
    tree = TreeSum(files[0].n_items)
    first: Part | None = None
    costs = []
    for file in sorted(files, key=lambda file: file.items.start):
        part = file.read()
        for node, terms in part.nodes.items():
            tree.put(*node, terms)
        costs.append(part.cost)
        first = first or replace(part, nodes={})
    assert first is not None
    (total,) = tree.nodes().values()
    cost = replace(together(costs), seconds=sum(cost.seconds for cost in costs))
    return evaluation_of(first.names, total, cost), first


def gradient_variables(part: Part, evaluation: Evaluation) -> dict[str, Variable]:
    """Those of a result file of one evaluation."""
    found = dict(part.frame)
    row = Row(part.stage, evaluation.value, np.nan, np.nan, evaluation.cost)
    unknown = ("objective", "gradient_norm")  # They belong to an inversion.
    found |= {name: v for name, v in columns([row]).items() if name not in unknown}
    for name, gradient in evaluation.gradient.items():
        model = part.frame[name]
        found[f"{name}_gradient"] = Variable(gradient, model.dims[1:], model.unit)
    return found
