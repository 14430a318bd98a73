"""What a plan promises is what a run takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import memory_use
import numpy as np
import pytest
from marks import more

import backsweep as bs


@pytest.mark.compiles
@pytest.mark.parametrize(
    "name", [n if n in ("disk", "wave") else more(n) for n in sorted(memory_use.CASES)]
)
def test_peak_memory(name: str) -> None:
    """In a process of its own: within 10 % and 20 MB of what was predicted."""
    run = subprocess.run(
        [sys.executable, memory_use.__file__, name], capture_output=True, text=True, check=True
    )
    predicted, peak, planned, done = json.loads(run.stdout)
    assert planned == done
    assert abs(peak - predicted) <= 0.1 * predicted + 20e6, (predicted, peak)


def _loss(*requests: bs.Checkpointing) -> Any:
    """Scans one after the other, each with a request."""

    def loss(u: Any) -> Any:
        total = 0.0
        for request in requests:
            step = lambda u, _: (u - 0.1 * u * u, None)  # noqa: E731
            u = bs.scan(step, u, length=500, checkpointing=request)[0]
            total = total + np.sum(u)
        return total

    return loss


U = np.linspace(0.1, 1, 100)


def test_scans_of_one_loss_share_their_budget() -> None:
    request = bs.Checkpointing(memory=64_000)
    report = bs.value_and_grad(_loss(request, request, request), has_report=True)(U)[2]
    held = [s.snapshot_bytes_memory for s in report.scans]
    assert len(held) == 3 and min(held) > 10_000 and sum(held) <= 64_000
    alone = bs.value_and_grad(_loss(request), has_report=True)(U)[2]
    assert 63_000 < alone.scans[0].snapshot_bytes_memory <= 64_000
    other = bs.Checkpointing(memory=32_000)
    report = bs.value_and_grad(_loss(request, other), has_report=True)(U)[2]
    assert [s.n_snapshots for s in report.scans] == [64_000 // 832, 32_000 // 832]


def test_items_of_a_sum_take_turns() -> None:
    request = bs.Checkpointing(memory=64_000)

    def loss(u: Any) -> Any:
        return bs.sum_over([1.0, 0.5, 0.25], lambda a: _loss(request)(a * u))

    report = bs.value_and_grad(loss, has_report=True)(U)[2]
    assert [s.n_snapshots for s in report.scans] == [64_000 // 832] * 3


def test_the_table_says_what_was_chosen_and_why() -> None:
    text = str(bs.plan(_loss(bs.Checkpointing(memory=64_000)), measure=True)(U))
    for words in ("Binomial: 76 states of 832 B fit into 64 kB", "half the memory", "advances",
                  "twice the memory", "memory left", "s for all sweeps", "native"):  # fmt: skip
        assert words in text, text
    assert "all states fit" in str(bs.plan(_loss(bs.Checkpointing(memory="1 GB")))(U))


def test_more_memory_never_means_more_advances() -> None:
    counts = [
        bs.plan(_loss(bs.Checkpointing(memory=m)))(U).n_advances for m in range(900, 420_000, 9000)
    ]
    assert counts == sorted(counts, reverse=True) and counts[-1] < 510
    assert bs.plan(_loss(bs.Checkpointing(memory=10**6)))(U).n_advances == 500
