"""Rows of the table: what was measured, against which goal, and how a script hands them on."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. `unit` is empty for a ratio; `goal` is None for what is only reported.

    `seconds` holds the contestants' medians, `remark` what a reader of the table must know.
    """

    work: str
    measure: str
    value: float
    goal: float | None = None
    unit: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    remark: str = ""

    @property
    def is_reached(self) -> bool:
        return self.goal is None or self.value <= self.goal

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return "reported"
        return "reached" if self.is_reached else "NOT reached"

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        goal = "" if self.goal is None else f", goal {self.goal:g}{unit}"
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.measure} = {self.value:.3f}{unit}{goal}: {self.verdict}{remark}"


def make_parser(text: str | None, repeat: int = 5) -> argparse.ArgumentParser:
    """Options that all scripts share; the description is the first line of `text`."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=repeat, help="measurements of each")
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    return parser


def run_script(
    measure_rows: Callable[[argparse.Namespace], Iterable[Row]], parser: argparse.ArgumentParser
) -> None:
    """Measure the rows of one script and write them where `--json` says."""
    from benchmarks.common import describe_machine

    arguments = parser.parse_args()
    record = {
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "machine": describe_machine(),
        "load": os.getloadavg()[0],
        "command": " ".join(sys.argv[1:]),
        "repeat": arguments.repeat,
    }
    print(record["machine"], flush=True)
    record["rows"] = [asdict(row) for row in measure_rows(arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
