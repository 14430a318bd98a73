"""Infinities and NaN in a sweep: noticed by one pass over its results, then located and told.

A warning by default, since an inversion's line search relies on getting them back; an error with
BACKSWEEP_CHECK_NAN=1. What came with the inputs is not told.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from backsweep import config
from backsweep.errors import NonFiniteError
from backsweep.ir import Source
from backsweep.ir.cause import is_finite
from backsweep.primitives.control import scan_shape
from backsweep.runtime import locate
from backsweep.runtime.talking import ranks_of
from backsweep.runtime.watch import field_names
from backsweep.trace.tracing import user_source

_told: ContextVar[list[str] | None] = ContextVar("told", default=None)


@contextmanager
def at_most_once() -> Iterator[None]:
    """Within the block one value that is not finite is located and told, not those after it."""
    token = _told.set([]) if _told.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _told.reset(token)


def check_forward(params: Any, args: Sequence[Any], results: Sequence[Any], table: Any) -> None:
    """Tell if a scan's final carry or records are not finite.

    Parameters
    ----------
    params, args, results
        Of a `scan` or `scan_forward`.
    table : mapping
        Handlers for what the interpreter runs again.
    """
    step, shape = params["step"], scan_shape(params)
    values = results[: len(step.outputs)]
    bad = [k for k, v in enumerate(values) if not is_finite(v)]
    if not bad:
        return
    track = results[len(values)] if len(results) > len(values) else None
    if track is not None:
        track.is_finite = False
    consts, init, xs = shape.split_inputs(args)
    if _is_nan((*consts, *xs)) or not all(map(is_finite, init)):
        return
    names = field_names(step, shape) + locate.record_names(step, shape)
    known = f"{locate.scan_text(shape)}: {locate.are(names[k] for k in bad)} at its end"
    try:
        _tell(params, known, lambda: locate.forward(params, args, values, table))
    except BaseException:
        if track is not None:
            track.close()
        raise


def check_reverse(params: Any, args: Sequence[Any], results: Sequence[Any], table: Any) -> None:
    """Tell if gradients of a scan are not finite though all that they are made of is.

    Parameters
    ----------
    params, args, results
        Of a `scan_reverse`.
    table : mapping
    """
    bad = [k for k, v in enumerate(results) if not is_finite(v)]
    if not bad:
        return
    track = args[0]
    shape, step = scan_shape(params), params["step"]
    n = len(step.inputs) - shape.n_carry
    if not track.is_finite or _is_nan(args[1 : 1 + n]):
        return
    if not all(map(is_finite, (*args[1 + n :], *track.driver.initial))):
        return
    names = locate.gradient_names(params)
    known = f"{locate.scan_text(shape)}, swept back: {locate.are(names[k] for k in bad)} at its end"
    _tell(params, known, lambda: locate.reverse(params, args, table))


def _is_nan(values: Sequence[Any]) -> bool:
    return any(not is_finite(v) and bool(np.any(np.isnan(v))) for v in values)


def _tell(params: Any, known: str, locate_it: Callable[[], locate.Found]) -> None:
    told = _told.get()
    if told:
        return
    try:
        # The others would have to run the steps again as well.
        is_shared = ranks_of(params) is not None
        found = locate.Found(f"{known}, on this rank") if is_shared else locate_it()
    except Exception as error:  # what is known is worth more than why the rest is not
        found = locate.Found(f"{known} (not located: {type(error).__name__}: {error})")
    if found.is_from_inputs:
        return
    sentence = found.sentence or known
    if told is not None:
        told.append(sentence)
    if config.is_nan_an_error():
        raise NonFiniteError(sentence)
    source = user_source() or Source("backsweep", 0)
    # Without a registry: a sentence is told as often as it happens, with the line that called.
    warnings.warn_explicit(sentence, RuntimeWarning, source.file, source.line)
