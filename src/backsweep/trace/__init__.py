"""Tracing: plain NumPy code in, program out."""

from backsweep.trace import array, ufuncs, ufunc_rules, indexing, functions  # noqa: I001  (each needs the ones before it)

__all__ = ["array", "functions", "indexing", "ufunc_rules", "ufuncs"]
