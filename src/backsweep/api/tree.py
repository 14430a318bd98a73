"""Containers of arrays (pytrees) through optree, with static leaves set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from backsweep.comm import BlockedArray
from backsweep.trace.array import TracedArray

NUMERIC = (np.ndarray, np.generic, TracedArray, BlockedArray, bool, int, float, complex)


def is_numeric(leaf: Any) -> bool:
    return isinstance(leaf, NUMERIC) and getattr(leaf, "dtype", np.dtype(float)).kind in "biufc"


@dataclass(frozen=True)
class Tree:
    """The structure of a container: everything but its arrays."""

    spec: Any
    static: tuple[tuple[int, Any], ...]
    n_leaves: int

    def build(self, leaves: Any) -> Any:
        """The container with these arrays."""
        static, numeric = dict(self.static), iter(leaves)
        full = [static[k] if k in static else next(numeric) for k in range(self.n_leaves)]
        return optree.tree_unflatten(self.spec, full)

    def same_as(self, other: Tree) -> bool:
        return bool(self.spec == other.spec) and self.static == other.static

    def paths(self) -> list[str]:
        """Names of the numeric leaves, such as "[0]['u']"."""
        static = dict(self.static)
        accessors = optree.treespec_accessors(self.spec)
        return [a.codify("") for k, a in enumerate(accessors) if k not in static]


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """Numeric leaves and structure; None, strings and objects are static."""
    leaves, spec = optree.tree_flatten(value)
    static = tuple((k, leaf) for k, leaf in enumerate(leaves) if not is_numeric(leaf))
    numeric = [leaf for leaf in leaves if is_numeric(leaf)]
    return numeric, Tree(spec, static, len(leaves))
