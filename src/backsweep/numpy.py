"""NumPy, plus the creators and joiners that NumPy does not dispatch.

`from backsweep import numpy as bnp` gives every public name of NumPy. Those that make
arrays (`bnp.zeros(n)`, `bnp.array([a, b])`, `bnp.asarray(plain)`) give traced arrays
while a function is traced, so that they can hold traced values and be indexed by them.
Outside of a trace they are NumPy's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as _np

from backsweep.trace import functions as _functions  # noqa: F401  (registers the handlers)
from backsweep.trace.array import HANDLED_FUNCTIONS as _HANDLED
from backsweep.trace.array import TracedArray as _TracedArray
from backsweep.trace.tracing import active_trace as _active_trace

_CREATORS = """
    arange array asanyarray asarray ascontiguousarray empty empty_like eye full full_like
    identity linspace ones ones_like zeros zeros_like
""".split()  # noqa: SIM905
_JOINERS = ["column_stack", "concatenate", "dstack", "hstack", "stack", "vstack"]


def _creator(function: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def create(*args: Any, **kwargs: Any) -> Any:
        if _active_trace() is None:
            return function(*args, **kwargs)
        kwargs.pop("like", None)
        return _HANDLED[function](*args, **kwargs)

    return create


def _joiner(function: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def join(arrays: Any, *args: Any, **kwargs: Any) -> Any:
        if _active_trace() is None:
            return function(arrays, *args, **kwargs)
        return _HANDLED[function](_with_lists_joined(arrays), *args, **kwargs)

    return join


def _with_lists_joined(arrays: Any) -> Any:
    """Lists among the operands may hold traced numbers."""
    if isinstance(arrays, (_TracedArray, _np.ndarray)):
        return arrays
    make = _HANDLED[_np.array]
    return [make(a) if isinstance(a, (list, tuple)) else a for a in arrays]


_OWN = {
    **{name: _creator(getattr(_np, name)) for name in _CREATORS},
    **{name: _joiner(getattr(_np, name)) for name in _JOINERS},
}
__all__ = sorted({*_OWN, *_np.__all__})


def __getattr__(name: str) -> Any:
    own = _OWN.get(name)
    return own if own is not None else getattr(_np, name)


def __dir__() -> list[str]:
    return __all__
