"""The Python executor keeps the same promises: schedules, stores, bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs


def _loss(checkpointing: bs.Checkpointing) -> Any:
    """A scan in a step with a checkpointing of its own: it is run by Python."""
    own = bs.Checkpointing(snapshots=1)

    def step(carry: Any, _: Any) -> Any:
        u, scale = carry
        relax = lambda c, _: (0.9 * np.sin(c) + 0.1 * u, None)  # noqa: E731
        inner, _ = bs.scan(relax, u, length=2, checkpointing=own)
        return (inner * scale, 0.99 * scale), inner[0]

    def loss(u: Any) -> Any:
        carry, ys = bs.scan(step, (u, 1.1), length=12, checkpointing=checkpointing)
        return np.sum(carry[0] ** 2) + np.sum(ys**2)

    return loss


def test_snapshots_go_to_disk_where_that_is_asked(tmp_path: Path) -> None:
    u = np.linspace(0.1, 1, 7)
    value, gradient, report = bs.value_and_grad(_loss(bs.Checkpointing()), has_report=True)(u)
    assert report.scans[0].executor.startswith("python")
    request = bs.Checkpointing(memory=0, disk="1 MB", directory=str(tmp_path), snapshots=3)
    out, pullback = bs.vjp(_loss(request), u)
    scan = pullback.report.scans[0]
    assert out == value
    assert scan.snapshot_bytes_disk > 0 and scan.n_disk_writes == 2
    assert 0 < len(list(tmp_path.iterdir())) <= 3
    for _ in range(2):
        np.testing.assert_array_equal(pullback(np.float64(1))[0], gradient)
    pullback.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("snapshots", [1, 3, 12])
def test_same_bits_with_any_number_of_snapshots(snapshots: int) -> None:
    u = np.linspace(0.1, 1, 7)
    expected = bs.grad(_loss(bs.Checkpointing()))(u)
    request = bs.Checkpointing(snapshots=snapshots, schedule="binomial")
    np.testing.assert_array_equal(bs.grad(_loss(request))(u), expected)


def test_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    gradient = bs.grad(lambda u: bs.jit(lambda v: np.sum(v**3))(u))(np.arange(4.0))
    np.testing.assert_allclose(gradient, 3 * np.arange(4.0) ** 2)
