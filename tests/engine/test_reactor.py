"""The reactor of Oktay et al. 2021 (examples/reactor.py): known counts, bytes and loss."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import MORE

import backsweep as bs

PATH = Path(__file__).parents[2] / "examples" / "reactor.py"


@pytest.fixture(scope="module")
def reactor() -> Any:
    spec = importlib.util.spec_from_file_location("reactor", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fifty_snapshots(reactor: Any) -> None:
    """218 kB instead of 178 MB, for the same bits."""
    theta = np.array(reactor.THETA, np.float32)
    fifty = reactor.make_loss(np.float32, bs.Checkpointing(snapshots=50))
    value, gradient, report = bs.value_and_grad(fifty, has_report=True)(theta)
    (scan,) = report.scans
    assert (scan.n_advances, scan.n_reverses, scan.n_snapshots) == (139_041, 40_961, 50)
    assert scan.executor == "native"
    field = 33 * 33 * 4
    assert 50 * field == 217_800 and scan.snapshot_bytes_memory - 50 * field < 50 * 64
    everything = reactor.make_loss(np.float32, bs.Checkpointing(memory="1 GB"))
    other, kept, report = bs.value_and_grad(everything, has_report=True)(theta)
    assert report.n_advances == 40_961
    assert other == value and np.array_equal(kept, gradient)


@MORE
def test_loss_and_gradient_in_double_precision(reactor: Any) -> None:
    loss = reactor.make_loss(np.float64, bs.Checkpointing(snapshots=50))
    theta = np.array(reactor.THETA)
    value, gradient = bs.value_and_grad(loss)(theta)
    assert abs(value - 0.07411963986) < 5e-12
    for k in range(7):
        step = 1e-5 * np.eye(7)[k]
        slope = (loss(theta + step) - loss(theta - step)) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-6, abs=1e-9)
