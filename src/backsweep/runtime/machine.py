"""What one thing of each kind takes on a machine: the parameters of the cost model (`costs`).

They are measured where the job would run (`calibrate`), kept in a file, and used anywhere. What
was not measured is assumed, and its name is kept beside the numbers.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

from backsweep.errors import MachineError, did_you_mean
from backsweep.runtime.checkpointing import format_bytes


@final
@dataclass(frozen=True)
class Machine:
    """Parameters of a machine: of a node, of messages, of the disk.

    Attributes
    ----------
    cores : int
        Of a node.
    memory_bytes, cache_bytes : int
        Of a node; the last level of all its caches together.
    core_bandwidth, node_bandwidth : float [B/s]
        Read and written by one core that copies, and by all cores of a node at once.
    round_seconds : float [s]
        Of an exchange of ghosts, without its messages: what Python takes for it.
    message_seconds : float [s]
        By which each message makes a round longer.
    waiting_seconds : float [s]
        By which a round takes longer for each further rank on a core: those that wait for messages
        yield the core, but hold it all the same.
    bandwidth : float [B/s]
        Of a long message within a node.
    stage_seconds : float [s]
        Of a small all-reduce on n ranks, divided by ceil(log2 n).
    object_seconds : float [s]
        Of an object that a rank hands to the root, or the root to a rank.
    setup_seconds : float [s]
        By which each rank, and each field, makes it longer for every rank to find its messages.
    network_seconds : float [s]
        By which a message between nodes takes longer than one within.
    network_bandwidth : float [B/s]
        Of a node's messages to other nodes, all its ranks together.
    file_seconds : float [s]
        To make and name a file.
    write_bandwidth, read_bandwidth : float [B/s]
        Of a node's snapshots in files.
    metadata_rate : float [1/s]
        Files made, named or removed per second by all nodes together.
    job_hours : float [h]
        The longest job.
    assumed : tuple of str
        Names of the parameters that were not measured.
    """

    cores: int = 1
    memory_bytes: int = 64 * 10**9
    cache_bytes: int = 0
    core_bandwidth: float = 1e10
    node_bandwidth: float = 1e10
    round_seconds: float = 2e-5
    message_seconds: float = 3e-6
    waiting_seconds: float = 3e-4
    bandwidth: float = 5e9
    stage_seconds: float = 1e-5
    object_seconds: float = 2e-5
    setup_seconds: float = 1.35e-5
    network_seconds: float = 1.5e-6
    network_bandwidth: float = 1.25e10
    file_seconds: float = 2e-4
    write_bandwidth: float = 2e9
    read_bandwidth: float = 2e9
    metadata_rate: float = 2e4
    job_hours: float = 24.0
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            value = getattr(self, name)
            least = 0 if name == "cache_bytes" else math.ulp(0.0)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < least:
                raise MachineError(f"{name} = {value!r}: a number above 0 is needed")
        for name in self.assumed:
            if name not in PARAMETERS:
                raise MachineError(f"assumed: {name!r}; {did_you_mean(name, PARAMETERS)}")

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people, with units."""
        return [(name.replace("_", " "), self._text(name)) for name in PARAMETERS]

    def _text(self, name: str) -> str:
        value = getattr(self, name)
        note = " (assumed)" if name in self.assumed else ""
        if name.endswith("_seconds"):
            return f"{1e6 * value:.3g} us{note}"
        if name.endswith("_bytes"):
            return format_bytes(value) + note
        if name.endswith("bandwidth"):
            return f"{format_bytes(value)}/s{note}"
        unit = {"metadata_rate": " files/s", "job_hours": " h"}.get(name, "")
        return f"{value:.3g}{unit}{note}"


PARAMETERS = tuple(f.name for f in fields(Machine) if f.name != "assumed")
"""Names of the numbers."""


@final
@dataclass(frozen=True)
class StepRates:
    """Core seconds per scalar operation of a scan's step, and of its adjoint."""

    advance: float
    reverse: float


@final
@dataclass(frozen=True)
class Measured:
    """What was measured: a machine, and the steps of one program on it.

    Attributes
    ----------
    machine : Machine
    steps : tuple of StepRates
        Of each scan of the program, in its order.
    """

    machine: Machine = field(default_factory=Machine)
    steps: tuple[StepRates, ...] = ()

    def write(self, path: Path) -> None:
        """Write a TOML file, or replace it. Raises MachineError if that cannot be done."""
        lines = ["# backsweep: parameters of a machine, and of the steps of one program on it"]
        lines += [f"assumed = {list(self.machine.assumed)!r}".replace("'", '"'), "", "[machine]"]
        lines += [f"{name} = {getattr(self.machine, name)!r}" for name in PARAMETERS]
        for rates in self.steps:
            lines += ["", "[[steps]]  # core seconds per scalar operation"]
            lines += [f"advance = {rates.advance!r}", f"reverse = {rates.reverse!r}"]
        try:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Read what `write` has written.

        Raises
        ------
        MachineError
            If the file is missing or not one of these, with the key that is wrong.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(f"the parameters {path} cannot be read: {reason}") from error
        except tomllib.TOMLDecodeError as error:
            raise MachineError(f"the parameters {path} are no valid TOML: {error}") from error
        try:
            return cls._from_table(table)
        except MachineError as error:
            raise MachineError(f"the parameters {path}: {error}") from error

    @classmethod
    def _from_table(cls, table: Mapping[str, Any]) -> Measured:
        _check_keys("", table, ("assumed", "machine", "steps"))
        numbers, steps = table.get("machine", {}), table.get("steps", [])
        if not isinstance(numbers, dict) or not isinstance(steps, list):
            raise MachineError("[machine] and [[steps]] are tables")
        _check_keys("machine.", numbers, PARAMETERS)
        missing = [name for name in PARAMETERS if name not in numbers]
        given = table.get("assumed", [])
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise MachineError("assumed is a list of names")
        assumed = tuple(dict.fromkeys((*given, *missing)))
        return cls(Machine(**numbers, assumed=assumed), tuple(map(_rates, steps)))


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise MachineError(f"{where}{key} is not known; {did_you_mean(key, known)}")


def _rates(table: Any) -> StepRates:
    if not isinstance(table, dict) or set(table) != {"advance", "reverse"}:
        raise MachineError("[[steps]] needs advance and reverse, and nothing else")
    values = [table["advance"], table["reverse"]]
    if any(not isinstance(v, (int, float)) or isinstance(v, bool) or v < 0 for v in values):
        raise MachineError(f"[[steps]]: advance and reverse are seconds, not {values}")
    return StepRates(*map(float, values))
