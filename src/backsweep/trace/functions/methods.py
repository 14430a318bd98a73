"""Methods of the traced array that are no NumPy functions, and those that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.trace.array import METHODS, TracedArray
from backsweep.trace.functions.common import handles
from backsweep.trace.tracing import trace_error
from backsweep.trace.ufuncs import apply


@handles(methods=["fill"])
def fill(self: TracedArray, value: Any) -> None:
    self[...] = value


@handles(methods=["conj", "conjugate"])
def conj(self: TracedArray) -> TracedArray:
    return apply(np.conjugate, self)


_REFUSED = {
    "item": "it has no number yet; keep it as a traced scalar",
    "tolist": "it has no numbers yet; return the array and convert it outside",
    "tobytes": "it has no bytes yet; return the array and convert it outside",
    "round": "its derivative is zero almost everywhere; use it outside of the traced function",
    "view": "bytes cannot be reinterpreted; use astype, .real or .imag",
    "sort": "sorting is not supported; sort outside and index with the order",
    "argsort": "sorting is not supported; sort outside and index with the order",
    "partition": "sorting is not supported; sort outside and index with the order",
    "searchsorted": "use np.sum(edges <= x) or compute the positions outside",
    "nonzero": "its size would depend on values; use np.where(mask, a, b)",
    "compress": "its size would depend on values; use np.where(mask, a, b)",
    "choose": "use np.where or np.select",
    "put": "use an index array, u[indices] = values",
    "resize": "the shape of an array is fixed; use np.pad or a slice",
    "cumprod": "use np.exp(np.cumsum(np.log(u))) or a scan",
}


def _refuse(name: str, reason: str) -> Any:
    def method(self: TracedArray, *args: Any, **kwargs: Any) -> Any:
        raise trace_error(f"u.{name}() is not supported on a traced value: {reason}")

    return method


METHODS.update({name: _refuse(name, reason) for name, reason in _REFUSED.items()})
