"""Run as a program: one gradient of several scans, resumable. Prints a JSON line at its end.

python resumable.py FOLDER '{"memory": "2 MB"}'
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import backsweep as bs

N_POINTS, N_STEPS = 3000, 4000


def make_loss(request: bs.Checkpointing | None, n: int = N_STEPS) -> Any:
    """A spin-up, and two items that go on from its end; records, controls per step, constants."""
    force = 1e-3 * np.sin(np.arange(n // 2))

    def step(u: Any, f: Any) -> Any:
        v = u - 0.05 * u * (u - np.roll(u, 1)) + f
        return v + nu * (np.roll(v, 1) - 2 * v + np.roll(v, -1)), v[::500]

    nu: Any = None

    def loss(u: Any, f: Any, given: Any) -> Any:
        nonlocal nu
        nu = given
        u, _ = bs.scan(step, u, f, checkpointing=request)

        def item(shift: float) -> Any:
            last, ys = bs.scan(step, u + shift, force, checkpointing=request)
            return np.sum(last**2) + np.sum(ys**2)

        return bs.sum_over([0.0, 0.1], item)

    return loss


def arguments(n: int = N_STEPS) -> tuple[Any, ...]:
    x = np.linspace(0, 2 * np.pi, N_POINTS)
    return np.sin(x), 1e-3 * np.cos(np.arange(n) / 50), np.full(N_POINTS, 0.1)


def main(folder: str, settings: dict[str, Any]) -> None:
    n = settings.pop("n_steps", N_STEPS)
    request = bs.Checkpointing(directory=folder, resume=True, **{"interval": 0.05} | settings)
    begin = time.perf_counter()
    gradient = bs.value_and_grad(make_loss(request, n), (0, 1, 2), has_report=True)
    report = gradient(*arguments(n))[2]
    print(
        json.dumps(
            {
                "value": report.value_fingerprint,
                "gradient": report.gradient_fingerprint,
                "advances": report.n_advances,
                "reverses": report.n_reverses,
                "seconds": time.perf_counter() - begin,
                "resumed": [s.resumed_at for s in report.scans],
                "left": sorted(p.name for p in Path(folder).glob("*")),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
