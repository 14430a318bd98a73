"""The root's calls of all ranks: recorded, and served from records when an inversion is resumed.

An inversion is resumed by running its optimiser again. As long as it asks for what is recorded
it is answered from the records; then evaluations go on. Should it ask for something else (another
CPU may round otherwise), all that is recorded becomes the *past*: it counts as done, and the
optimiser starts anew from the best model of it. (DESIGN 7.)

Known to be suboptimal: a past is gone through again at each start.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from backsweep.comm import Team
from backsweep.errors import SnapshotError, Stopped
from backsweep.inverse.cost import Cost
from backsweep.inverse.evaluate import Evaluation
from backsweep.inverse.problem import Parameters
from backsweep.inverse.under_way import SHARE, UnderWay
from backsweep.runtime import stop
from backsweep.storage.records import Record, RecordFolder

MAX_UNSAVED_BYTES = 1 << 26
"""Records that wait in memory, so that writing does not take more than its share of the time."""

_RESTART = "restart"
_COUNTED = ("evaluate", "gauss_newton")

Entry = tuple[dict[str, Any], dict[str, np.ndarray]]


class Diverged(Exception):
    """The optimiser asks for something else than what is recorded."""


@dataclass(frozen=True)
class PastCall:
    """A call before the optimiser was started anew.

    Attributes
    ----------
    stage : int
    counts : bool
        Whether it is one of a stage's evaluations.
    parameters, evaluation
        Of an evaluation.
    """

    stage: int
    counts: bool
    parameters: Parameters | None = None
    evaluation: Evaluation | None = None


@final
class Calls:
    """Calls of a team's tasks.

    Parameters
    ----------
    team : Team
        Its tasks take an `UnderWay` as last argument.
    folder : RecordFolder, optional
        Without it nothing is recorded.
    say : callable
        Told what could not be written.
    interval : float
        Seconds after which a failed write is tried again.

    Attributes
    ----------
    is_served : bool
        Whether the last answer was recorded.
    """

    def __init__(
        self,
        team: Team,
        folder: RecordFolder | None,
        say: Callable[[str], None],
        interval: float,
    ) -> None:
        self.team, self.folder, self.say, self.interval = team, folder, say, interval
        self.is_served = False
        self._records = [] if folder is None else folder.records
        restarts = [k for k, record in enumerate(self._records) if _is_restart(record)]
        self._next = self._n_past = restarts[-1] + 1 if restarts else 0
        self._unsaved: list[Entry] = []
        self._stage, self._settings = 0, dict[str, Any]()
        self._is_stage_set = False
        self._last, self._pause = -np.inf, 0.0

    def set_stage(self, number: int, settings: Mapping[str, Any]) -> None:
        """What follows belongs to a stage; its data are made when they are needed."""
        self._stage, self._settings, self._is_stage_set = number, dict(settings), False

    def __call__(self, task: str, *args: Any) -> Any:
        """The answer of a task on all ranks, or what is recorded of it.

        Raises
        ------
        Diverged
            If something else is recorded.
        Stopped
            When a signal came to a rank; what is done is on disk.
        """
        checksum = checksum_of(task, self._stage, args)
        if self._next < len(self._records):
            record = self._records[self._next]
            if record.about["checksum"] != checksum:
                raise Diverged
            answer = self._served(record)
            if answer is not None:
                self._next += 1
                self.is_served = True
                return answer
        self.is_served = False
        return self._made(task, args, checksum)

    # ------------------------------------------------------------------ records

    def found(self, n_evaluations: int, n_items: int) -> str:
        """One sentence about what is resumed; empty where there is nothing."""
        if self.folder is None:
            return ""
        n = sum(record.about["task"] in _COUNTED for record in self._records)
        under_way = self.folder.directory.glob(f"call-{len(self._records):08d}-*")
        parts = [f"{n} of {n_evaluations} evaluations recorded"] if self._records else []
        for path in under_way:
            done = len(UnderWay.find(path).items(n_items))
            begun = len(list(path.glob("item-*")))
            if done or begun:
                parts.append(
                    f"evaluation {n + 1} under way: {done} of {n_items} items done, {begun} begun"
                )
        return f"resuming: {', '.join(parts)} ({self.folder.directory})" if parts else ""

    @property
    def has_past(self) -> bool:
        return self._n_past > 0

    def start_anew(self) -> int:
        """Let all that is recorded be past; how many evaluations that are."""
        assert self.folder is not None
        self.folder.append([({"task": _RESTART, "checksum": ""}, {})])
        self._next = self._n_past = len(self._records)
        return sum(record.about["task"] in _COUNTED for record in self._records)

    def past(self) -> Iterator[PastCall]:
        """The calls before the optimiser was started anew, in their order."""
        for record in self._records[: self._n_past]:
            about = record.about
            if _is_restart(record):
                continue
            counts = about["task"] in _COUNTED
            if about["task"] != "evaluate":
                yield PastCall(about["stage"], counts)
                continue
            arrays = record.read()
            parameters = {name: arrays[f"p{k}"] for k, name in enumerate(about["names"])}
            yield PastCall(about["stage"], counts, parameters, _answer(record, arrays))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """If the block ends with an error all records are made durable.

        Raises
        ------
        SnapshotError
            If they cannot be written when the run is stopped, which promises that it is kept.
        """
        try:
            yield
        except Stopped:
            self.save()
            raise
        except BaseException:
            self._save_or_say()
            raise

    def save(self) -> None:
        """Make all records durable.

        Raises
        ------
        SnapshotError
            If they cannot be written.
        """
        if self.folder is None or not self._unsaved:
            return
        begin = time.monotonic()
        self.folder.append(self._unsaved)
        self._unsaved = []
        self._next = len(self._records)
        self._last = time.monotonic()
        self._pause = (self._last - begin) / SHARE

    def _served(self, record: Record) -> Any:
        assert self.folder is not None
        try:
            return _answer(record, record.read())
        except SnapshotError as error:
            warnings.warn(f"resume: {error}; it is computed again", RuntimeWarning, stacklevel=3)
            self.folder.truncate(self._next)
            return None

    def _made(self, task: str, args: Sequence[Any], checksum: str) -> Any:
        where = "" if self.folder is None else str(self.folder.directory)
        if stop.requested():
            self.team("stop", where)
        if not self._is_stage_set:
            self.team("set_stage", self._settings)
            self._is_stage_set = True
        if self.folder is None:
            return self.team(task, *args)
        self.folder.name()
        path = self.folder.directory / f"call-{self._next:08d}-{checksum}"
        self.folder.remove_folders(but=path)
        answer = self.team(task, *args, UnderWay.find(path))
        self._unsaved.append(_entry(task, self._stage, args, checksum, answer))
        self._next += 1
        self._save_if_due()
        shutil.rmtree(path, ignore_errors=True)
        return answer

    def _save_if_due(self) -> None:
        n_bytes = sum(a.nbytes for _, arrays in self._unsaved for a in arrays.values())
        is_due = time.monotonic() - self._last >= self._pause or n_bytes > MAX_UNSAVED_BYTES
        if not (is_due or stop.requested()):
            return
        self._save_or_say()

    def _save_or_say(self) -> None:
        try:
            self.save()
        except SnapshotError as error:
            self.say(f"{error}; the run goes on without it")
            self._last, self._pause = time.monotonic(), self.interval


def checksum_of(task: str, stage: int, args: Sequence[Mapping[str, Any]]) -> str:
    """Of the arguments of a call: names, dtypes, shapes and bits."""
    digest = hashlib.blake2b(f"{task} {stage}".encode(), digest_size=8)
    for arg in args:
        for name, value in arg.items():
            array = np.ascontiguousarray(value)
            digest.update(f"{name} {array.dtype} {np.shape(value)}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _is_restart(record: Record) -> bool:
    return bool(record.about["task"] == _RESTART)


def _entry(task: str, stage: int, args: Sequence[Any], checksum: str, answer: Any) -> Entry:
    about: dict[str, Any] = {"task": task, "stage": stage, "checksum": checksum}
    if not isinstance(answer, Evaluation):
        fields = {f"g{k}": np.asarray(g) for k, g in enumerate(answer.values())}
        return about | {"names": list(answer)}, fields
    names = list(answer.gradient)
    about |= {
        "names": names,
        "cost": asdict(answer.cost),
        "fingerprints": [answer.value_fingerprint, answer.gradient_fingerprint],
    }
    arrays = {"value": np.array(answer.value)}
    for k, name in enumerate(names):
        arrays[f"g{k}"] = np.asarray(answer.gradient[name])
        arrays[f"p{k}"] = np.asarray(args[0][name])
    return about, arrays


def _answer(record: Record, arrays: Mapping[str, np.ndarray]) -> Any:
    about = record.about
    fields = {name: arrays[f"g{k}"] for k, name in enumerate(about["names"])}
    if "cost" not in about:
        return fields
    return Evaluation(float(arrays["value"]), fields, Cost(**about["cost"]), *about["fingerprints"])
