"""Run files: TOML in, validated settings and the problem out."""

from __future__ import annotations

import importlib
import inspect
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from backsweep.errors import ModelError, RunFileError, did_you_mean
from backsweep.inverse.identity import checksum_of_file
from backsweep.inverse.inversion import Inversion, Method, Preconditioner, Regulariser, Stage
from backsweep.inverse.regularisation import Tikhonov, TotalVariation
from backsweep.inverse.transforms import Unknown
from backsweep.problems.files import ArrayFile, find_file, read_array
from backsweep.problems.tables import Count, NotNegative, Positive, Table
from backsweep.runtime.checkpointing import Checkpointing

BUILT_IN = {
    "acoustic": "backsweep.problems.acoustic:AcousticProblem",
    "pulse_design": "backsweep.problems.pulse_design:PulseDesign",
}


class ParameterTable(Table):
    """[parameters.NAME]: how one parameter is sought, and what is asked of it."""

    transform: Literal["none", "log", "slowness", "logistic"] = "none"
    bounds: tuple[float, float] | None = None
    mask: ArrayFile | None = None
    smoothing: NotNegative | tuple[NotNegative, ...] = 0.0
    scale: Positive | None = None
    tikhonov: NotNegative = 0.0
    tikhonov_order: Literal[0, 1] = 1
    total_variation: NotNegative = 0.0
    total_variation_epsilon: Positive = 1e-3

    def unknown(self) -> Unknown:
        mask = None if self.mask is None else read_array(self.mask).astype(bool)
        return Unknown(
            transform=self.transform,
            bounds=self.bounds,
            mask=mask,
            smoothing=self.smoothing,
            scale=self.scale,
        )

    def regularisers(self) -> tuple[Regulariser, ...]:
        found: list[Regulariser] = []
        if self.tikhonov:
            found.append(Tikhonov(self.tikhonov, self.tikhonov_order))
        if self.total_variation:
            found.append(TotalVariation(self.total_variation, self.total_variation_epsilon))
        return tuple(found)


class OptimiserTable(Table):
    """[optimiser]"""

    method: Method = "L-BFGS-B"
    evaluations: Count = 40
    first_step: Positive = 0.02
    history: Count = 20
    inner_iterations: Count = 8
    tolerance: NotNegative = 1e-12
    preconditioner: Preconditioner = "none"


class CheckpointingTable(Table):
    """[checkpointing]: as `backsweep.Checkpointing`; `resume` is for the command `invert`."""

    memory: int | str | None = None
    disk: int | str | None = None
    directory: str | None = None
    scratch: str | None = None
    schedule: Literal["auto", "store_all", "binomial", "multistage", "mixed", "online"] = "auto"
    snapshots: Count | None = None
    resume: bool = True
    interval: Positive = 60.0

    @model_validator(mode="after")
    def _fits(self) -> CheckpointingTable:
        if not self.resume and self.disk is None:
            Checkpointing(directory=self.directory)
        self.request()
        return self

    def request(self) -> Checkpointing:
        """Of a gradient that is not resumed."""
        given = self.model_dump(exclude={"resume"})
        if self.disk is None:
            given["directory"] = None
        return Checkpointing(**given)

    def resumable(self, result: Path, fresh: bool) -> Checkpointing:
        """Of an inversion that writes a result."""
        if not self.resume:
            return self.request()
        folder = resume_folder(result, self.directory)
        scratch = self.scratch or (self.directory if self.disk is not None else None)
        given = self.model_dump() | {"directory": str(folder), "scratch": scratch}
        return Checkpointing(**given, fresh=fresh)


def resume_folder(result: Path, directory: str | None) -> Path:
    """Where an inversion keeps what it needs to be resumed."""
    name = f"{result.name}.resume"
    return (result.parent if directory is None else Path(directory)) / name


class OutputTable(Table):
    """[output]"""

    result: str = "result.h5"
    picture: str | None = None
    every_model: bool = True


class RunFile(Table):
    """A whole run file."""

    title: str = ""
    model: str
    problem: dict[str, Any] = {}
    parameters: dict[str, ParameterTable] = {}
    optimiser: OptimiserTable = OptimiserTable()
    stages: list[dict[str, Any]] = []
    checkpointing: CheckpointingTable = CheckpointingTable()
    output: OutputTable = OutputTable()
    ranks_per_shot: Count | Literal["auto"] = 1

    def inversion(self) -> Inversion:
        return Inversion(
            stages=tuple(self._stages()),
            unknowns={name: self._unknown(name) for name in self.parameters},
            regularisers={
                name: table.regularisers()
                for name, table in self.parameters.items()
                if table.regularisers()
            },
            **self.optimiser.model_dump(exclude={"evaluations"}),
        )

    def _unknown(self, name: str) -> Unknown:
        try:
            return self.parameters[name].unknown()
        except (ModelError, RunFileError) as error:
            raise RunFileError(f"parameters.{name}: {error}") from error

    def _stages(self) -> list[Stage]:
        if not self.stages:
            return [Stage(self.optimiser.evaluations)]
        found = []
        for number, table in enumerate(self.stages):
            settings = dict(table)
            evaluations = settings.pop("evaluations", None)
            if type(evaluations) is not int or evaluations < 1:
                raise RunFileError(
                    f"stages.{number}.evaluations = {evaluations!r}: a whole number of at least 1 "
                    "is needed"
                )
            found.append(Stage(evaluations, settings))
        return found


def problem_identity(run: RunFile, folders: Sequence[Path]) -> dict[str, str]:
    """Texts of all settings of [problem], and checksums of the files that they name."""
    found = {"model": run.model}
    for key, value in _flat(run.problem, "problem"):
        found[key] = str(value)
        if isinstance(value, str):
            try:
                path = find_file(value.partition(":")[0], folders)
                found[key] = f"{checksum_of_file(path)} {value.partition(':')[2]}".strip()
            except (ValueError, OSError):
                continue
    return found


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}")
    else:
        yield key, value


def load(path: Path, changes: Sequence[str] = ()) -> tuple[RunFile, str, tuple[Path, ...]]:
    """A run file with changes "key=value".

    Returns
    -------
    run : RunFile
    text : str
        The file as it was read, and the changes.
    folders : tuple of Path
        Where files are looked for: the current one, then that of the run file.

    Raises
    ------
    RunFileError
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFileError(f"the run file {path} cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise RunFileError(f"the run file {path} is no valid TOML: {error}") from error
    for change in changes:
        _apply(table, change)
        text += f"\n# --set {change}"
    folders = (Path(), path.parent)
    try:
        return RunFile.read(table, folders=folders), text, folders
    except RunFileError as error:
        raise RunFileError(f"{path}: {error}") from error


def _apply(table: dict[str, Any], change: str) -> None:
    """Set a nested key; the value is TOML, or else a plain text."""
    key, is_given, value = change.partition("=")
    *parents, last = (name.strip() for name in key.split("."))
    if not is_given or not all((*parents, last)):
        raise RunFileError(f"--set {change}: write key=value, such as optimiser.evaluations=10")
    for name in parents:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RunFileError(f"--set {change}: {name} is a value, not a table")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value.strip()


def make_problem(run: RunFile, folders: Sequence[Path]) -> Any:
    """The problem of a run file: a built-in one, or the user's "module:attribute".

    Raises
    ------
    RunFileError
        If it cannot be found, or does not take the keys of [problem].
    """
    if run.model not in BUILT_IN and ":" not in run.model:
        raise RunFileError(
            f"model = {run.model!r} is not known; {did_you_mean(run.model, BUILT_IN)}, or "
            'your own "module:attribute"'
        )
    factory = _imported(BUILT_IN.get(run.model, run.model), folders)
    if hasattr(factory, "from_table"):
        return factory.from_table(run.problem, folders)
    _check_keywords(factory, run.problem)
    return factory(**run.problem)


def _imported(name: str, folders: Sequence[Path]) -> Any:
    module_name, _, attribute = name.partition(":")
    for folder in reversed(folders):
        entry = str(folder.resolve())
        if entry not in sys.path:
            sys.path.insert(0, entry)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise
        looked = " and ".join(str(f.resolve()) for f in folders)
        raise RunFileError(
            f"model = {name!r}: there is no module {module_name!r} (looked for in {looked} and "
            "the Python environment)"
        ) from None
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise RunFileError(
            f"model = {name!r}: the module has no {attribute!r}; {did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute)


def _check_keywords(factory: Any, table: Mapping[str, Any]) -> None:
    """Refuse keys of [problem] that the user's class or function does not take."""
    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in table:
        if key not in parameters:
            hint = did_you_mean(key, parameters) if parameters else "it takes none"
            raise RunFileError(f"problem.{key} is not known to {factory.__name__}; {hint}")
    for name, p in parameters.items():
        if p.default is p.empty and name not in table and p.kind is not p.VAR_POSITIONAL:
            raise RunFileError(f"problem.{name} is missing; {factory.__name__} needs it")
