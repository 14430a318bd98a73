"""Calls of `comm.collectives` in a traced function."""

from __future__ import annotations

from typing import Any

from backsweep.comm.collectives import RECORDERS
from backsweep.primitives import REGISTRY
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import active_trace


def record(name: str, array: Any, params: Any) -> TracedArray | None:
    """Append a call to the active trace; None without one."""
    trace = active_trace()
    return None if trace is None else wrap(trace.emit(REGISTRY[name], lift(array), **params))


RECORDERS.append(record)
