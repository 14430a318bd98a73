"""Rows, ratios, agreement and the page with the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common import Contestant, Result, check_agreement, difference, report_ratio
from benchmarks.rows import Row
from benchmarks.table import BEGIN, END, NEW_PAGE, format_line, update_page

RECORD: dict[str, Any] = {
    "date": "2026-01-02 03:04",
    "machine": "a machine",
    "load": 0.5,
    "repeat": 3,
    "rows": [Row("work", "a / b", 0.25, 0.5, seconds={"a": 1.0, "b": 4.0})],
}


def _result(name: str, *seconds: float) -> Result:
    return Result(name, 9.0, seconds, None)


def test_a_ratio_is_ours_over_the_fastest_of_the_others() -> None:
    results = [
        _result("ours", 1.0, 3.0, 2.0),
        _result("slow", 50.0, 40.0, 45.0),
        _result("fast", 5.0, 4.0, 100.0),
    ]
    row = report_ratio("work", results, "ours", ["slow", "fast"], 0.5)
    assert row.value == pytest.approx(2 / 5)  # of medians
    assert row.measure == "ours / fast"
    assert row.seconds == {"ours": 2.0, "slow": 45.0, "fast": 5.0}
    assert row.is_reached
    assert not report_ratio("work", results, "ours", ["fast"], 0.3).is_reached


@pytest.mark.parametrize(
    "value, goal, verdict", [(1, 2, "reached"), (3, 2, "NOT reached"), (3, None, "reported")]
)
def test_verdicts(value: float, goal: float | None, verdict: str) -> None:
    row = Row("work", "figure", value, goal, "s")
    assert row.verdict == verdict and verdict in str(row)
    cells = [c.strip() for c in format_line(row, "script").strip("|").split("|")]
    assert cells[0] == "work" and cells[-1] == "script"
    assert cells[-2] == (f"**{verdict}**" if verdict.startswith("NOT") else verdict)


def test_results_that_disagree_are_refused() -> None:
    reference = (2.0, np.array([3.0, 4.0]))
    assert difference((2.0, np.array([3.0, 4.0])), reference) == 0
    assert difference((2.2, np.array([3.0, 4.0])), reference) == pytest.approx(0.1)
    assert difference({"b": 1.0, "a": 2.0}, {"a": 2.0, "b": 1.0}) == 0
    contestant = Contestant("other", lambda: lambda: None, 1e-3)
    check_agreement(contestant, (2.001, reference[1]), "first", reference)
    for wrong in (2.1, np.nan):
        with pytest.raises(AssertionError, match="other differs from first"):
            check_agreement(contestant, (wrong, reference[1]), "first", reference)


def test_the_text_around_the_table_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    before, after = "# Title\n\nWords before | with a bar.\n\n", "\n\nWords after.\n"
    page.write_text(f"{before}{BEGIN}\nan old table\n{END}{after}")
    update_page(page, {"one": RECORD, "two": None, "three": {"failed": "status 1", "rows": []}})
    text = page.read_text()
    assert text.startswith(before) and text.endswith(after)
    assert "an old table" not in text
    assert "| work | a / b | a 1 s, b 4 s | 0.25 | <= 0.5 | reached | one |" in text
    assert "| two | | | | | not measured | two |" in text
    assert "| three | | | | | **failed** | three |" in text
    assert "Machine 1: a machine." in text
    update_page(page, {"one": RECORD, "two": None, "three": {"failed": "status 1", "rows": []}})
    assert page.read_text() == text


def test_a_page_is_made_and_one_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "new" / "benchmarks.md"
    update_page(page, {"one": RECORD})
    text = page.read_text()
    assert text.startswith(NEW_PAGE.split(BEGIN)[0]) and text.count("| one |") >= 1
    page.write_text("only words\n")
    with pytest.raises(ValueError, match="has no lines"):
        update_page(page, {"one": RECORD})
    assert page.read_text() == "only words\n"
