"""From bytes to a schedule, where little fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.errors import BudgetError, ScheduleError, SnapshotError
from backsweep.storage import raw

U = np.linspace(0.1, 1, 7)


def make_loss(request: Any, n: int) -> Any:
    def loss(u: Any) -> Any:
        u, _ = bs.scan(lambda u, _: (u - 0.1 * u * u, None), u, length=n, checkpointing=request)
        return np.sum(u)

    return loss


@pytest.mark.parametrize("n", [1, 2, 3, 30, 400])
def test_no_memory_but_a_disk(n: int, tmp_path: Path) -> None:
    """Few small steps are cheaper than files: advancing from the initial state needs no budget."""
    request = bs.Checkpointing(memory=0, disk="1 GB", directory=str(tmp_path))
    found = bs.grad(make_loss(request, n))(U)
    assert np.array_equal(found, bs.grad(make_loss(None, n))(U))
    with pytest.raises(BudgetError, match="smaller than one state"):
        bs.grad(make_loss(bs.Checkpointing(memory=0), max(n, 2)))(U)


def test_schedules_that_know_no_disk() -> None:
    for schedule in ("mixed", "online"):
        with pytest.raises(ScheduleError, match="in memory: leave disk= out"):
            bs.Checkpointing(schedule=schedule, disk="1 GB", directory="x")


def broken(*args: Any) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("n_slots", [0, 3])
def test_a_disk_that_cannot_be_read_any_more(
    n_slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written again and lost again: the run ends, by memory alone or with the error."""
    memory = n_slots * 64
    request = bs.Checkpointing(memory=memory, disk="1 GB", directory=str(tmp_path), snapshots=12)
    n = 2000
    expected = bs.grad(make_loss(None, n))(U)
    monkeypatch.setattr(raw, "read_at", broken)
    gradient = bs.value_and_grad(make_loss(request, n), has_report=True)
    if n_slots == 0:
        with pytest.warns(RuntimeWarning), pytest.raises(SnapshotError, match="Input/output"):
            gradient(U)
    else:
        with pytest.warns(RuntimeWarning):
            _, found, report = gradient(U)
        assert np.array_equal(found, expected)
        assert report.scans[0].n_lost < 40
    assert list(tmp_path.iterdir()) == []
