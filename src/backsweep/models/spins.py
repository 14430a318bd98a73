"""Spins and the waveforms that act on them: the data of the Bloch model, and its checks.

Values are checked where they are known; traced arrays have a shape and a dtype only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.errors import ModelError

Array = Any


@dataclass(frozen=True, slots=True)
class Spins:
    """What the magnetisation depends on besides the waveforms; a scalar holds for every spin.

    Attributes
    ----------
    position : ndarray, shape (n, 3) [m]
    m0 : ndarray, shape (n,), or float
        Equilibrium magnetisation, in any unit; the signal has the same.
    t1, t2 : ndarray, shape (n,), or float [s]
        Relaxation times; infinity means no relaxation.
    off_resonance : ndarray, shape (n,), or float [rad/s]
        gamma times the deviation of the static field.
    """

    position: Array
    m0: Array = 1.0
    t1: Array = np.inf
    t2: Array = np.inf
    off_resonance: Array = 0.0


@dataclass(frozen=True, slots=True)
class Sequence:
    """Waveforms that are constant in each interval, and where the signal is sampled.

    Attributes
    ----------
    durations : ndarray, shape (n_steps,) [s]
        Length of each interval.
    rf : ndarray, shape (n_steps,), complex [T]
        Transmitted field B1x + i B1y in the rotating frame.
    gradient : ndarray, shape (n_steps, 3) [T/m]
    adc_steps : ndarray, shape (n_samples,), integer, optional
        Sample k is taken at the end of interval adc_steps[k]. By default at the end of each.
    adc_phase : ndarray, shape (n_samples,), or float [rad]
        Phase of the receiver at each sample.
    """

    durations: Array
    rf: Array
    gradient: Array
    adc_steps: Array = None
    adc_phase: Array = 0.0


def check(spins: Spins, sequence: Sequence) -> None:
    """Refuse what cannot be simulated, or is likely to be in another unit.

    Values are checked where they are known, shapes of traced arrays too.

    Raises
    ------
    ModelError
        On shapes that do not fit, values that are not finite, T1, T2 or durations that are not
        positive, T2 > 2 T1, samples outside of the sequence, and values far out of range.
    """
    n_spins = check_shape("spins.position", spins.position, (None, 3))[0]
    n_steps = check_shape("sequence.durations", sequence.durations, (None,))[0]
    for name in ("m0", "t1", "t2", "off_resonance"):
        check_shape(f"spins.{name}", getattr(spins, name), (n_spins,), or_scalar=True)
    check_shape("sequence.rf", sequence.rf, (n_steps,), kinds="fiuc")
    check_shape("sequence.gradient", sequence.gradient, (n_steps, 3))
    n_samples = n_steps
    if sequence.adc_steps is not None:
        n_samples = check_shape("sequence.adc_steps", sequence.adc_steps, (None,))[0]
        _check_samples(np.asarray(sequence.adc_steps), n_steps)
    check_shape("sequence.adc_phase", sequence.adc_phase, (n_samples,), or_scalar=True)
    for name, limit, unit, hint in _RANGES:
        owner, _, field = name.partition(".")
        _check_range(name, getattr({"spins": spins}.get(owner, sequence), field), limit, unit, hint)
    t1, t2 = spins.t1, spins.t2
    if _is_plain(t1) and _is_plain(t2) and np.any(np.asarray(t2) > 2 * np.asarray(t1)):
        raise ModelError(
            "spins.t2 exceeds twice spins.t1, which no spin does: exchange them or lower t2"
        )


#: Name, largest magnitude, unit, what a larger value is likely to be.
_RANGES = (
    ("spins.position", 10.0, "m", "looks like mm; multiply by 1e-3"),
    ("spins.m0", np.inf, "", ""),
    ("spins.t1", 100.0, "s", "looks like ms; multiply by 1e-3"),
    ("spins.t2", 100.0, "s", "looks like ms; multiply by 1e-3"),
    ("spins.off_resonance", 1e7, "rad/s", "looks like the carrier; give the difference from it"),
    ("sequence.durations", 100.0, "s", "looks like ms or us; multiply by 1e-3 or 1e-6"),
    ("sequence.rf", 1.0, "T", "looks like uT; multiply by 1e-6"),
    ("sequence.gradient", 1.0, "T/m", "looks like mT/m; multiply by 1e-3"),
    ("sequence.adc_phase", np.inf, "rad", ""),
)
_POSITIVE = ("spins.t1", "spins.t2", "sequence.durations")


def _check_range(name: str, values: Array, limit: float, unit: str, hint: str) -> None:
    if not _is_plain(values):
        return
    values = np.asarray(values)
    if name in ("spins.t1", "spins.t2"):
        values = values[values != np.inf]  # no relaxation
    if not np.all(np.isfinite(values)):
        raise ModelError(f"{name} holds nan or inf: give finite values")
    if name in _POSITIVE and np.any(values <= 0):
        raise ModelError(f"{name} is {values.min():g} {unit} at least once: it must be positive")
    largest = np.max(np.abs(values), initial=0.0)
    if largest > limit:
        raise ModelError(f"{name} reaches {largest:g} {unit}: {hint}")


def _check_samples(steps: Array, n_steps: int) -> None:
    if steps.dtype.kind not in "iu":
        raise ModelError(f"sequence.adc_steps has the dtype {steps.dtype}: give integers")
    if steps.size and not (steps.min() >= 0 and steps.max() < n_steps):
        raise ModelError(
            f"sequence.adc_steps reaches from {steps.min()} to {steps.max()}: the sequence has "
            f"the intervals 0 to {n_steps - 1}"
        )


def check_shape(
    name: str,
    value: Array,
    expected: tuple[int | None, ...],
    *,
    or_scalar: bool = False,
    kinds: str = "fiu",
) -> tuple[int, ...]:
    """The shape of an array of numbers, None in `expected` standing for any length."""
    array = as_array(value)
    if not hasattr(array, "dtype") or array.dtype.kind not in kinds:
        what = getattr(array, "dtype", type(value).__name__)
        wanted = "real or complex" if "c" in kinds else "real"
        raise ModelError(f"{name} is of the type {what}: give {wanted} numbers")
    shape: tuple[int, ...] = array.shape
    fits = len(shape) == len(expected) and all(
        e in (None, s) for s, e in zip(shape, expected, strict=True)
    )
    if not fits and not (or_scalar and shape == ()):
        lengths = ", ".join("n" if e is None else str(e) for e in expected)
        also = " or ()" if or_scalar else ""
        raise ModelError(f"{name} has the shape {shape}: give ({lengths}){also}")
    return shape


def _is_plain(value: Array) -> bool:
    """Whether its values are known, that is, it is not traced."""
    return isinstance(value, np.ndarray | np.generic | int | float | complex | list | tuple)


def as_array(value: Array) -> Array:
    """Lists and numbers as NumPy arrays, traced values as they are."""
    return np.asarray(value) if _is_plain(value) else value
