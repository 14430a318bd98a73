"""The table in docs/benchmarks.md: every row that was measured, reached or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

BEGIN, END = "<!-- table: python -m benchmarks --write -->", "<!-- end of the table -->"
HEADINGS = ("work", "figure", "medians", "value", "goal", "verdict", "script")

NEW_PAGE = f"""# Benchmarks

Contestants run in turns, each in a process of its own, after their results were compared; ratios
are of medians, smaller is better. Goals that are not reached are listed as such.

{BEGIN}
{END}
"""


def format_line(row: Row, script: str) -> str:
    """One line of the table."""
    unit = f" {row.unit}" if row.unit else ""
    medians = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in row.seconds.items())
    goal = "" if row.goal is None else f"<= {row.goal:g}{unit}"
    cells = (
        row.work,
        row.measure,
        "; ".join(text for text in (medians, row.remark) if text),
        f"{row.value:.3g}{unit}",
        goal,
        row.verdict if row.is_reached else f"**{row.verdict}**",
        script,
    )
    return f"| {' | '.join(cells)} |"


def format_table(records: Mapping[str, dict[str, Any] | None]) -> Iterator[str]:
    """Lines of the table, then how and when each script was run."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{'---|' * len(HEADINGS)}"
    for script, record in records.items():
        rows = record["rows"] if record else []
        yield from (format_line(row, script) for row in rows)
        if not rows:
            verdict = "**failed**" if record else "not measured"
            yield f"| {script} | | | | | {verdict} | {script} |"
    measured = {name: record for name, record in records.items() if record and record["rows"]}
    machines = list(dict.fromkeys(record["machine"] for record in measured.values()))
    for number, machine in enumerate(machines, 1):
        yield ""
        yield f"Machine {number}: {machine}."
    yield ""
    yield "| script | date | load average before | repetitions | machine |"
    yield "|---|---|---|---|---|"
    for name, record in measured.items():
        number = machines.index(record["machine"]) + 1
        yield (
            f"| {name} | {record['date']} | {record['load']:.2f} | {record['repeat']} | {number} |"
        )


def update_page(path: Path, records: Mapping[str, dict[str, Any] | None]) -> None:
    """Replace the table of a page, which is made if it is missing."""
    text = path.read_text() if path.exists() else NEW_PAGE
    before, found, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise ValueError(
            f"{path} has no lines {BEGIN!r} and {END!r} for the table to stand between"
        )
    table = "\n".join(format_table(records))
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    print(f"wrote {path}")
