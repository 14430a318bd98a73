"""Wrong use: one clear sentence, with the user's file and line where there is one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.errors import (
    BudgetError,
    DifferentiationError,
    MutationError,
    ScheduleError,
    ShapeError,
    SnapshotError,
    TraceError,
)

U = np.linspace(0.2, 1.4, 6)


def scan_of(step: Callable[..., Any]) -> Any:
    return bs.scan(step, U, length=3)


def total(**checkpointing: Any) -> Callable[..., Any]:
    """A loss through 30 steps."""

    def loss(u: Any) -> Any:
        request = bs.Checkpointing(**checkpointing)
        return np.sum(
            bs.scan(lambda v, _: (v - 0.1 * v * v, None), u, None, 30, checkpointing=request)[0]
        )

    return loss


def check(
    function: Callable[[], Any], kind: type[Exception], builtin: type[Exception], *words: str,
    line: str = "",
) -> None:  # fmt: skip
    """One error of ours with these words, naming this file and the line of the mistake."""
    with pytest.raises(kind) as caught:
        function()
    message = str(caught.value)
    assert isinstance(caught.value, builtin)
    assert isinstance(caught.value, bs.BacksweepError)
    for word in words:
        assert word in message
    sentence = message.split("\n  at ")[0]
    assert "\n" not in sentence and len(sentence) < 300
    if line:
        assert re.search(rf"{re.escape(__file__)}:\d+: .*{re.escape(line)}", message), message


# --------------------------------------------------------------------------- tracing


def test_if_on_a_traced_value() -> None:
    def step(u: Any, _: Any) -> Any:
        if u[0] > 0:
            u = 2 * u
        return u, None

    check(lambda: scan_of(step), TraceError, TypeError, "np.where", line="if u[0] > 0")


@pytest.mark.parametrize("function", [np.sort, np.linalg.inv, np.fft.fft, np.median])
def test_unsupported_function(function: Any) -> None:
    def step(u: Any, _: Any) -> Any:
        return function(u), None

    name = function.__name__
    check(lambda: scan_of(step), TraceError, TypeError, name, "not supported", line="function(u)")


@pytest.mark.parametrize("where", [0, slice(None), slice(1, 2)])
def test_traced_value_into_a_plain_array(where: Any) -> None:
    def step(u: Any, _: Any) -> Any:
        work = np.zeros(6)
        work[where] = u[where]
        return work, None

    words = "plain array", "np.zeros(shape, like=u)", "backsweep.numpy.zeros"
    check(lambda: scan_of(step), TraceError, TypeError, *words, line="work[where] = u[where]")


def test_list_of_traced_values_to_an_array() -> None:
    def step(u: Any, _: Any) -> Any:
        return np.array([u[k] for k in range(6)]), None

    check(lambda: scan_of(step), TraceError, TypeError, "backsweep.numpy.array", line="np.array(")


def test_plain_array_indexed_by_a_traced_one() -> None:
    wavelet = np.arange(6.0)

    def step(carry: Any, _: Any) -> Any:
        u, n = carry
        return (u * wavelet[n], n + 1), None

    words = "xs", "backsweep.numpy.asarray"
    run = lambda: bs.scan(step, (U, 0), length=3)  # noqa: E731
    check(run, TraceError, TypeError, *words, line="wavelet[n]")


def test_python_number_of_a_traced_value() -> None:
    step = lambda u, _: (u * float(u[0]), None)  # noqa: E731
    check(lambda: scan_of(step), TraceError, TypeError, "no number yet", line="float(u[0])")


def test_mask_as_a_value_of_unknown_size() -> None:
    step = lambda u, _: (u + np.sum(u[u > 0]), None)  # noqa: E731
    check(lambda: scan_of(step), TraceError, TypeError, "np.where", line="u[u > 0]")


def test_shape_mismatch_inside_a_step() -> None:
    def add(u: Any, _: Any) -> Any:
        return u[1:] + u, None

    def put(u: Any, _: Any) -> Any:
        u[1:] = u
        return u, None

    check(lambda: scan_of(add), ShapeError, ValueError, "(5,)", "(6,)", line="u[1:] + u")
    check(lambda: scan_of(put), ShapeError, ValueError, "(5,)", "(6,)", line="u[1:] = u")


def test_value_used_after_its_trace() -> None:
    kept: list[Any] = []

    def step(u: Any, _: Any) -> Any:
        kept.append(u)
        return u, None

    scan_of(step)
    check(lambda: kept[0] + 1, TraceError, TypeError, "after its function was traced")


# --------------------------------------------------------------------------- scans


def test_carry_that_changes_its_shape_or_dtype() -> None:
    grow = lambda u, _: (u[1:], None)  # noqa: E731
    check(lambda: scan_of(grow), ShapeError, ValueError, "f64[6]", "f64[5]", line="bs.scan(step, U")

    def widen(carry: Any, _: Any) -> Any:
        return {"u": carry["u"] + np.float64(1)}, None

    run = lambda: bs.scan(widen, {"u": U.astype(np.float32)}, length=3)  # noqa: E731
    check(run, ShapeError, ValueError, "['u']", "f32[6]", ".astype(float32)", line="bs.scan(widen")


def test_carry_that_changes_its_structure() -> None:
    double = lambda u, _: ((u, u), None)  # noqa: E731
    check(lambda: scan_of(double), ShapeError, ValueError, "structure", line="bs.scan(step, U")


def test_step_that_returns_no_pair() -> None:
    step = lambda u, _: 2 * u  # noqa: E731
    check(
        lambda: scan_of(step), TraceError, TypeError, "(carry, y)", "None", line="bs.scan(step, U"
    )


def test_lengths() -> None:
    step = lambda u, x: (u, None)  # noqa: E731
    check(lambda: bs.scan(step, U), ShapeError, ValueError, "xs or length")
    run = lambda: bs.scan(step, U, np.zeros(3), 4)  # noqa: E731
    check(run, ShapeError, ValueError, "[3, 4]", line="np.zeros(3), 4")
    check(lambda: bs.scan(step, U, 2.0), ShapeError, ValueError, "leading axis")


def test_writing_to_a_captured_array() -> None:
    def loss(c: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            c[0] = 1.0
            return u * c, None

        return np.sum(scan_of(step)[0])

    words = "captured", "carry", "copy"
    check(lambda: bs.grad(loss)(U), TraceError, TypeError, *words, line="c[0] = 1.0")


def test_plain_work_array_that_changes_while_tracing() -> None:
    work = np.zeros(6)

    def step(u: Any, _: Any) -> Any:
        u = u + work
        work[:] = 2.0
        return u, None

    check(lambda: scan_of(step), MutationError, ValueError, "was changed", "test_wrong_use.py")


def test_randomness_in_a_step() -> None:
    generator = np.random.default_rng(1)
    old = np.random.RandomState(1)
    draws = np.random.normal, generator.normal, old.normal
    steps = [
        lambda u, _: (u + np.random.normal(size=6), None),
        lambda u, _: (u + generator.normal(size=6), None),
        lambda u, _: (u + old.normal(size=6), None),
    ]
    assert len(draws) == len(steps)
    for step in steps:
        check(lambda s=step: scan_of(s), TraceError, TypeError, "random state", "pass them as xs")


# --------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize(
    "loss, found",
    [
        (lambda u: 2 * u, "f64[6]"),
        (lambda u: np.sum(1j * u), "c128[]"),
        (lambda u: np.sum(u > 0), "i64[]"),
        (lambda u: None, "nothing"),
    ],
)
def test_loss_that_is_no_real_scalar(loss: Any, found: str) -> None:
    check(lambda: bs.grad(loss)(U), DifferentiationError, TypeError, found)


def test_integer_input_to_grad() -> None:
    run = lambda: bs.grad(lambda u: np.sum(u * 0.5))(np.arange(3))  # noqa: E731
    check(run, DifferentiationError, TypeError, "int64", ".astype(float)")


def test_argnums_and_aux() -> None:
    run = lambda: bs.grad(np.sum, argnums=3)(U)  # noqa: E731
    check(run, DifferentiationError, TypeError, "argnums=3")
    aux = lambda: bs.value_and_grad(np.sum, has_aux=True)(U)  # noqa: E731
    check(aux, DifferentiationError, TypeError, "(value, aux)")


def test_directions_of_another_shape() -> None:
    check(lambda: bs.jvp(np.sum, (U,), (U[1:],)), ShapeError, ValueError, "(5,)", "(6,)")
    check(lambda: bs.vjp(np.sin, U)[1](U[1:]), ShapeError, ValueError, "(5,)", "(6,)")


def test_reverse_over_reverse_through_a_scan() -> None:
    gradient = bs.grad(total())
    run = lambda: bs.grad(lambda u: np.sum(gradient(u) ** 2))(U)  # noqa: E731
    words = "reverse mode over reverse mode", "jvp(grad(f))"
    check(run, DifferentiationError, TypeError, *words)


# --------------------------------------------------------------------------- checkpointing


def test_budget_smaller_than_one_state(tmp_path: Path) -> None:
    words = "10 B", "one state"
    check(lambda: bs.grad(total(memory=10))(U), BudgetError, MemoryError, *words)
    disk = {"memory": 10, "disk": 10, "directory": str(tmp_path)}
    check(lambda: bs.grad(total(**disk))(U), BudgetError, MemoryError, *words)
    everything = total(memory=1000, schedule="store_all")
    check(lambda: bs.grad(everything)(U), BudgetError, MemoryError, "store_all", "30 steps")
    assert os.listdir(tmp_path) == []


def test_requests_that_make_no_sense() -> None:
    for wrong, word in [
        ({"schedule": "revolve"}, "revolve"),
        ({"memory": "lots"}, "lots"),
        ({"disk": "1 GB"}, "directory"),
        ({"snapshots": 0}, "at least 1"),
    ]:
        check(lambda w=wrong: bs.Checkpointing(**w), ScheduleError, ValueError, word)


@pytest.mark.parametrize("name", ["file", "missing/folder"])
def test_folder_that_is_not_writable(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file") if name == "file" else "/proc/missing/folder"
    loss = total(snapshots=5, memory=0, disk="1 GB", directory=folder)
    check(lambda: bs.grad(loss)(U), SnapshotError, OSError, folder)


def test_full_disk_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    reserve = os.posix_fallocate

    def fill_up(file: int, start: int, length: int) -> None:
        written.append(length)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(file, start, length)

    monkeypatch.setattr(os, "posix_fallocate", fill_up)
    loss = total(snapshots=5, memory=0, disk="1 GB", directory=str(tmp_path))
    words = "could not be written", str(tmp_path), "No space left"
    expected = bs.grad(total())(U)
    with pytest.warns(RuntimeWarning) as caught:
        found = bs.grad(loss)(U)
    assert np.array_equal(found, expected) and len(written) >= 4
    assert all(word in str(caught[0].message) for word in words)
    assert os.listdir(tmp_path) == []


def test_damaged_snapshot(tmp_path: Path) -> None:
    value, pullback = bs.vjp(total(snapshots=5, memory=0, disk="1 GB", directory=str(tmp_path)), U)
    assert np.isfinite(value)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    for file in files:
        raw = bytearray(file.read_bytes())
        at = raw.rfind(b"\x3f")  # the exponent of a value
        raw[at] ^= 0x10
        file.write_bytes(raw)
    words = "snapshot of step", "checksum", str(tmp_path)
    with pytest.warns(RuntimeWarning) as caught:
        found = pullback(1.0)[0]
    assert np.array_equal(found, bs.grad(total())(U))
    assert all(word in str(caught[0].message) for word in words)
    pullback.close()
    assert os.listdir(tmp_path) == []
