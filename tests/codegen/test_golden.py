"""Golden files: programs and generated kernels of a 1D wave and of pair forces.

A change of a pass or of the generator shows here as a diff that is read before `make golden`
accepts it. Nothing is compiled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.passes import linearize, simplify, transpose
from backsweep.runtime import compiled

pytestmark = pytest.mark.golden

Golden = Callable[[str, str], None]
QUIET = np.zeros(60, np.float32)
C2 = np.full(60, 0.25, np.float32)  # (velocity dt / spacing)^2
WAVELET = np.ones(5, np.float32)
IS_ACTIVE = [False, False, True, True, True, True]
"""Of the step's inputs: the two captured indices, then c2, u, u_prev, w."""


def wave(c2: Any, u: Any, u_prev: Any, w: Any) -> Any:
    u_next = 2 * u - u_prev
    u_next[1:-1] += c2[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
    u_next[20] += w
    return u_next, u_next[50]


def wave_loss(c2: Any) -> Any:
    def step(carry: Any, w: Any) -> Any:
        u_next, trace = wave(c2, *carry, w)
        return (u_next, carry[0]), trace

    _, traces = bs.scan(step, (QUIET, QUIET), WAVELET)
    return 0.5 * np.sum(traces**2)


def pair_forces_loss(x: Any, v: Any) -> Any:
    def step(carry: Any, _: Any) -> Any:
        x, v = carry
        d = x[None, :] - x[:, None]
        force = (d / (d * d + 0.01) ** 1.5).sum(axis=1)
        v = v + 0.001 * force
        return (x + 0.001 * v, v), None

    return np.sum(bs.scan(step, (x, v), length=3)[0][0] ** 2)


X = np.linspace(-1, 1, 40)
GRADIENTS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wave1d": (wave_loss, (C2,)),
    "pair_forces": (pair_forces_loss, (X, 0 * X)),
}


def print_sources() -> None:
    """The source texts behind each gradient, as JSON; in a process of its own, because sweeps that
    are not compiled must not be remembered."""
    texts: list[str] = []
    compiled.load_sweep = lambda text: texts.append(text) or (lambda *args: None)  # type: ignore
    found = {}
    for name, (loss, arguments) in GRADIENTS.items():
        texts.clear()
        bs.grad(loss, tuple(range(len(arguments))))(*arguments)
        found[name] = list(texts)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def sources() -> dict[str, list[str]]:
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    code = "import test_golden; test_golden.print_sources()"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return json.loads(run.stdout)


@pytest.fixture
def wave_program() -> Any:
    leaves, tree = flatten((C2, QUIET, QUIET, WAVELET[0]))
    return trace_function(wave, [type_of(leaf) for leaf in leaves], tree, "wave").program


def test_traced_step(golden: Golden, wave_program: Any) -> None:
    golden("wave1d_traced.txt", f"{wave_program}\n")


def test_linearized_step(golden: Golden, wave_program: Any) -> None:
    parts = linearize(wave_program, IS_ACTIVE)
    golden("wave1d_linearized.txt", f"{parts.primal}\n\n{parts.tangent}\n")


def test_transposed_step(golden: Golden, wave_program: Any) -> None:
    parts = linearize(wave_program, IS_ACTIVE)
    adjoint = simplify(transpose(parts.tangent, parts.n_residuals))
    golden("wave1d_transposed.txt", f"{adjoint}\n")


@pytest.mark.parametrize(
    "name, direction", [("wave1d", "forward"), ("wave1d", "reverse"), ("pair_forces", "reverse")]
)
def test_kernels_and_step(
    golden: Golden, sources: dict[str, list[str]], name: str, direction: str
) -> None:
    parts = (part.strip() for text in sources[name] for part in re.split(r"\n(?=@njit)", text))
    of_step = list(dict.fromkeys(f for f in parts if f"def {direction}" in f))
    assert of_step
    golden(f"{name}_{direction}.txt", "\n\n\n".join(of_step) + "\n")
