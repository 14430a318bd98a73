"""Exact gradients of long simulations written in plain NumPy, inside a memory budget."""

from backsweep import comm, numpy
from backsweep.api.derivatives import (
    grad,
    hvp,
    jvp,
    linearize,
    value_and_grad,
    vjp,
)
from backsweep.api.external import external_step
from backsweep.api.loops import fori_loop, while_loop
from backsweep.api.planning import plan
from backsweep.api.pullback import Pullback
from backsweep.api.scaling import scaling
from backsweep.api.scans import jit, scan
from backsweep.api.structure import checkpoint, remat, stop_gradient, sum_over
from backsweep.comm import BlockedArray, Decomposition
from backsweep.errors import BacksweepError
from backsweep.runtime.adjoint import record_adjoint
from backsweep.runtime.arrays import release_memory
from backsweep.runtime.checkpointing import Checkpointing, Labels, default_checkpointing
from backsweep.runtime.report import Report
from backsweep.version import __version__

__all__ = [
    "BacksweepError",
    "BlockedArray",
    "Checkpointing",
    "Decomposition",
    "Labels",
    "Pullback",
    "Report",
    "checkpoint",
    "comm",
    "default_checkpointing",
    "external_step",
    "fori_loop",
    "grad",
    "hvp",
    "jit",
    "jvp",
    "linearize",
    "numpy",
    "plan",
    "record_adjoint",
    "release_memory",
    "remat",
    "scaling",
    "scan",
    "stop_gradient",
    "sum_over",
    "value_and_grad",
    "vjp",
    "while_loop",
    "__version__",
]
