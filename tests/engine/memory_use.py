"""Run as a program with a problem's name: prints predicted and measured peak resident bytes."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import backsweep as bs


def heat(n: int, request: bs.Checkpointing) -> tuple[Any, tuple[Any, ...]]:
    """One long state, a gradient as long."""
    u, a = np.linspace(0, 1, 300_000), np.full(300_000, 1e-4)

    def loss(u: Any, a: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            w = u + a * np.roll(u, 1) * np.sin(u)
            return w, w[0]

        v, ys = bs.scan(step, u, length=n, checkpointing=request)
        return np.sum(v**2) + np.sum(ys)

    return loss, (u, a)


def wave(n: int, request: bs.Checkpointing) -> tuple[Any, tuple[Any, ...]]:
    """Two components, of which one is handed on; every state is kept."""
    c = np.full((600, 600), 0.3, np.float32)
    wavelet = np.sin(np.arange(n) * 0.1).astype(np.float32)
    zero = np.zeros_like(c)

    def loss(c: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            u, before = state
            new = 2 * u - before
            laplacian = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
            new[1:-1, 1:-1] += c[1:-1, 1:-1] ** 2 * (laplacian - 4 * u[1:-1, 1:-1])
            new[300, 300] += x
            return (new, u), new[10]

        _, traces = bs.scan(step, (zero, zero), wavelet, checkpointing=request)
        return np.sum(traces**2)

    return loss, (c,)


def movie(n: int, request: bs.Checkpointing) -> tuple[Any, tuple[Any, ...]]:
    """Records as large as the states."""
    u = np.linspace(0, 1, 100_000)

    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            v = u * 0.999 + np.sin(u) * 1e-3
            return v, v

        return np.sum(bs.scan(step, u, length=n, checkpointing=request)[1] ** 2)

    return loss, (u,)


def spins(n: int, request: bs.Checkpointing) -> tuple[Any, tuple[Any, ...]]:
    """Small controls of a large state."""
    m = np.zeros((3, 100_000))
    m[2] = 1
    w, pulse = np.linspace(-1, 1, m.shape[1]), np.full((n, 2), 1e-2)

    def loss(pulse: Any) -> Any:
        def step(m: Any, b: Any) -> Any:
            x, y, z = m[0], m[1], m[2]
            x, y = x + w * y * 0.01 - b[1] * z, y - w * x * 0.01 + b[0] * z
            return np.stack([x, y, z + b[1] * x - b[0] * y]), None

        return np.sum(bs.scan(step, m, pulse, checkpointing=request)[0][2])

    return loss, (pulse,)


CASES: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "heat": (heat, 300, {"memory": "100 MB"}),
    "wave": (wave, 120, {}),
    "movie": (movie, 200, {"memory": "40 MB"}),
    "spins": (spins, 200, {"memory": "60 MB"}),
    "disk": (heat, 150, {"memory": "60 MB", "disk": "1 GB", "snapshots": 40}),
}


def main(name: str) -> None:
    problem, n, settings = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        if "disk" in settings:
            settings["directory"] = folder
        short = bs.Checkpointing(snapshots=1) if settings else bs.Checkpointing()
        loss, args = problem(3, short)
        argnums = tuple(range(len(args)))
        bs.value_and_grad(loss, argnums)(*args)  # loads the code
        bs.release_memory()
        loss, args = problem(n, bs.Checkpointing(**settings))
        forecast = bs.plan(loss, argnums)(*args)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        report = bs.value_and_grad(loss, argnums, has_report=True)(*args)[2]
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    assert (report.scans[0].n_disk_writes > 0) == (name == "disk")
    print(json.dumps([forecast.resident_bytes, peak, forecast.n_advances, report.n_advances]))


if __name__ == "__main__":
    main(sys.argv[1])
