"""Expansions of transcendental functions: against NumPy, and compiled against evaluated."""

from __future__ import annotations

import platform
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from backsweep.codegen import cache
from backsweep.ir import ArrayType, Builder, Program
from backsweep.primitives import REGISTRY
from backsweep.primitives.far import LIMIT, TWO_OVER_PI, reduced
from backsweep.runtime.scan import run_scan

NAMES = ("sin", "cos", "exp", "expm1", "log", "log1p", "tanh")
DTYPES = (np.float64, np.float32)
#: The double that is nearest to a multiple of pi/2 (Muller et al. 2010): NumPy's cos is 8 ulp off.
HARDEST = 6381956970095103 * 2.0**797


def _arguments(name: str, dtype: Any) -> np.ndarray:
    """Any representation at all, and many values where the function does something."""
    rng, info = np.random.default_rng(3), np.finfo(dtype)
    unsigned = f"u{info.bits // 8}"
    anything = rng.integers(0, np.iinfo(unsigned).max, 100_000, unsigned, True).view(dtype)
    near = np.exp(rng.uniform(-45, 6.6, 100_000)) * rng.choice([-1, 1], 100_000)
    anything = anything[~np.isnan(anything)]
    bounds = [709.78, 709.79, -745.1, -745.2, 88.72, 88.73, -103.9, -104.0, LIMIT, -LIMIT]
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, info.tiny, info.max, info.eps]
    special += [info.smallest_subnormal, -1 - info.eps, -1 + info.epsneg, *bounds]
    turns = np.arange(-999, 999) * (np.pi / 2)
    return np.concatenate([anything, near, 1 + near * 1e-3, turns, special]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_within_four_ulp_of_numpy(name: str, dtype: Any) -> None:
    x = _arguments(name, dtype)
    with np.errstate(all="ignore"):
        found = REGISTRY[name].evaluate({}, x)
        # NumPy's float32 functions are off by up to 3 ulp themselves.
        expected = getattr(np, name)(x.astype(np.float64)).astype(dtype)
    assert found.dtype == dtype
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    np.testing.assert_array_max_ulp(found[finite], expected[finite], 4)


@pytest.mark.compiles
def test_compiled_is_vectorised_and_has_the_bits_of_evaluated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ordinary and huge angles mixed; values that are flushed are left out."""
    b, variables, outputs, arrays = Builder(), [], [], []
    for dtype in DTYPES:
        x = _arguments("sin", dtype)[:70_001]
        with np.errstate(all="ignore"):
            x = x[~(np.abs(x) < np.finfo(dtype).tiny)]
        variables.append(b.input(ArrayType(x.shape, x.dtype)))
        arrays.append(x)
        outputs += [b(REGISTRY[name], variables[-1]) for name in NAMES]
    program: Program = b.build(outputs, "step")
    params = {"step": program, "n_consts": 2, "n_carry": 0, "length": 1}
    loaded: list[Any] = []
    monkeypatch.setattr(
        "backsweep.runtime.compiled.load_sweep",  # code from the disk has no text
        lambda text: loaded.append(cache.load_sweep(f"{text}# {time.time()}\n")) or loaded[-1],
    )
    compiled = run_scan(params, arrays)
    with np.errstate(all="ignore"):
        for k, found in enumerate(compiled):
            x = arrays[k // len(NAMES)]
            expected = REGISTRY[NAMES[k % len(NAMES)]].evaluate({}, x)
            is_denormal = np.abs(expected) < np.finfo(x.dtype).tiny
            np.testing.assert_array_equal(found[0], np.where(is_denormal, 0, expected))
    _assert_vectorised("\n".join(loaded[0].inspect_asm().values()))


def _assert_vectorised(assembly: str) -> None:
    """No calls of the C library, and most multiplications are of whole vectors."""
    for name in NAMES:
        assert f"${name}," not in assembly and f"${name}f," not in assembly
    if platform.machine() in ("x86_64", "AMD64"):
        assert assembly.count("mulpd") > assembly.count("mulsd") / 3
        assert assembly.count("mulps") > assembly.count("mulss") / 3


def test_huge_angles_are_reduced_exactly() -> None:
    """Against Python's integers."""
    rng = np.random.default_rng(4)
    x = np.exp(rng.uniform(np.log(LIMIT), 709.7, 300)) * rng.choice([-1, 1], 300)
    x = np.append(x, [HARDEST, -HARDEST, np.nextafter(LIMIT, np.inf), np.finfo(float).max])
    turns, rest = reduced(x.view(np.uint64), TWO_OVER_PI.__getitem__, np.float64)
    two_over_pi = Fraction(
        sum(int(w) << 32 * k for k, w in enumerate(reversed(TWO_OVER_PI))),
        1 << 32 * (TWO_OVER_PI.size - 2),
    )
    for value, turn, r in zip(x, turns, rest, strict=True):
        exact = Fraction(float(value)) * two_over_pi
        whole = round(exact)
        assert int(turn) % 4 == whole % 4
        assert r == pytest.approx(float(exact - whole) * np.pi / 2, rel=4e-16)
