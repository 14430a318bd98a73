"""From programs to compiled sweeps. Importing this package starts no compiler."""

from backsweep.codegen.statistics import statistics

__all__ = ["statistics"]
