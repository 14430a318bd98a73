"""Inputs for every primitive: a primitive without an entry fails test_every_primitive_...

Values are those of float64 or complex128; the tests derive the single precision ones. `smooth`
inputs stay away from kinks and are differentiated; `extreme` ones (ties, NaN, infinities) only
compare compiled code with the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.primitives import REGISTRY


@dataclass(frozen=True)
class Example:
    """Operands and parameters of one use of a primitive."""

    args: tuple[np.ndarray, ...]
    params: dict[str, Any] = field(default_factory=dict)
    is_smooth: bool = True

    def in_single(self) -> Example:
        """The same in float32 and complex64."""
        single = {"f": np.float32, "c": np.complex64}
        args = tuple(a.astype(single.get(a.dtype.kind, a.dtype)) for a in self.args)
        params = dict(self.params)
        dtype = params.get("dtype")
        if dtype is not None and dtype.kind in single:
            params["dtype"] = np.dtype(single[dtype.kind])
        return Example(args, params, self.is_smooth)


def _values(shape: tuple[int, ...], low: float, high: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def _complex(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return _values(shape, 0.3, 1.7, seed) - 1j * _values(shape, 0.2, 1.2, seed + 1)


X, Y = _values((3, 7), -1.5, 1.5), _values((3, 7), 0.4, 2.0, 1)
Z, W = _complex((3, 5)), _complex((3, 5), 5)
HUGE = np.array([1e7, -1e7, 3e5, 5e18, -2e36, np.inf, np.nan, 0.5, 1.0])
INTEGERS = np.array([-7, -2, 0, 1, 3, 8]), np.array([2, -3, 5, 1, -4, 3])
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5])
PAIRS = tuple(a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
TIES = np.array([1.0, 2.0, 2.0, -1.0]), np.array([1.0, 3.0, 2.0, -1.5])


def _extreme(*args: np.ndarray) -> Example:
    return Example(args, is_smooth=False)


def _one(low: float, high: float) -> list[Example]:
    """A function of one variable on an interval."""
    return [Example((_values((4, 9), low, high),)), _extreme(SPECIAL)]


ARITHMETIC = [Example((X, Y)), Example((Z, W)), _extreme(*PAIRS), _extreme(*INTEGERS)]
COMPARISON = [_extreme(X, X[::-1].copy()), _extreme(*PAIRS), _extreme(*INTEGERS)]
MASKS = np.array([True, True, False, False]), np.array([True, False, True, False])


def _int(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _sum(shape: tuple[int, ...], axes: tuple[int, ...], seed: int = 0) -> Example:
    return Example((_values(shape, -1, 1, seed),), {"axes": axes})


def _region(shape: Any, starts: Any, steps: Any, sizes: Any) -> list[Example]:
    whole, part = _values(shape, -1, 1), _values(sizes, -1, 1, 1)
    return [
        Example((whole,), {"starts": starts, "steps": steps, "sizes": sizes}),
        Example((part,), {"shape": shape, "starts": starts, "steps": steps}),
        Example((whole, part), {"starts": starts, "steps": steps}),
    ]


REGIONS = [
    _region((6, 9), (1, 2), (1, 1), (4, 5)),
    _region((6, 9), (0, 8), (2, -2), (3, 4)),
    _region((7,), (6,), (-1,), (7,)),
    _region((4, 3, 5), (3, 0, 1), (-3, 1, 2), (2, 3, 2)),
    _region((5, 4), (2, 0), (1, 1), (0, 4)),
]
POINTS, MORE_POINTS = _int(4, 0, 2), _int(1, 1, 3)
BASE, ROWS = _values((5, 4), -1, 1), _values((3, 4), -1, 1, 1)

EXAMPLES: dict[str, list[Example]] = {
    "add": ARITHMETIC,
    "sub": ARITHMETIC,
    "mul": [*ARITHMETIC[:2], _extreme(*PAIRS), _extreme(*INTEGERS)],
    "div": ARITHMETIC[:3],
    "neg": [Example((X,)), Example((Z,)), _extreme(SPECIAL), _extreme(INTEGERS[0])],
    "select": [
        Example((X > 0, X, Y)),
        Example((Z.real > 1, Z, W)),
        _extreme(PAIRS[0] > 0, *PAIRS),
        _extreme(INTEGERS[0] > 0, *INTEGERS),
    ],
    "cast": [
        Example((X,), {"dtype": np.dtype(np.float64)}),
        Example((X,), {"dtype": np.dtype(np.complex128)}),
        Example((Z,), {"dtype": np.dtype(np.complex128)}),
        Example((INTEGERS[0],), {"dtype": np.dtype(np.float64)}, False),
        Example((MASKS[0],), {"dtype": np.dtype(np.float64)}, False),
        Example((MASKS[0],), {"dtype": np.dtype(np.int64)}, False),
        Example((10 * X,), {"dtype": np.dtype(np.int64)}, False),
        Example((X,), {"dtype": np.dtype(bool)}, False),
    ],
    "real": [Example((Z,))],
    "imag": [Example((Z,))],
    "conj": [Example((Z,))],
    "complex": [Example((X, Y))],
    "complex_abs": [Example((Z,)), _extreme(np.array([0j, 3 + 4j, -1j, 2.0]))],
    **dict.fromkeys(("lt", "le", "gt", "ge"), COMPARISON),
    **{name: [*COMPARISON, _extreme(Z, np.where(Z.real > 1, Z, W))] for name in ("eq", "ne")},
    **{name: [_extreme(*MASKS)] for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": [_extreme(MASKS[0])],
    "floor": [_extreme(7 * X), _extreme(SPECIAL)],
    "ceil": [_extreme(7 * X), _extreme(SPECIAL)],
    "sign": [_extreme(X), _extreme(SPECIAL), _extreme(INTEGERS[0])],
    "floor_divide": [_extreme(7 * X, Y), _extreme(*INTEGERS)],
    "remainder": [Example((7 * X, Y)), _extreme(*TIES)],
    "maximum": [Example((X, Y)), _extreme(*PAIRS), _extreme(*TIES), _extreme(*INTEGERS)],
    "minimum": [Example((X, Y)), _extreme(*PAIRS), _extreme(*TIES), _extreme(*INTEGERS)],
    "abs": [Example((X,)), _extreme(SPECIAL), _extreme(INTEGERS[0])],
    "sqrt": [*_one(0.1, 4.0), Example((Z,))],
    "exp": [*_one(-2.0, 2.0), Example((Z,))],
    "log": [*_one(0.1, 4.0), Example((Z,))],
    "expm1": _one(-2.0, 2.0),
    "log1p": _one(-0.8, 3.0),
    "sin": [*_one(-9.0, 9.0), Example((1000 * X,)), _extreme(HUGE)],
    "cos": [*_one(-9.0, 9.0), Example((1000 * X,)), _extreme(HUGE)],
    "tan": _one(-1.2, 1.2),
    "sinh": _one(-2.0, 2.0),
    "cosh": _one(-2.0, 2.0),
    "tanh": _one(-2.0, 2.0),
    "arcsin": _one(-0.9, 0.9),
    "arccos": _one(-0.9, 0.9),
    "arcsinh": _one(-3.0, 3.0),
    "arccosh": _one(1.2, 4.0),
    "arctan": _one(-3.0, 3.0),
    "arctanh": _one(-0.9, 0.9),
    "arctan2": [Example((X, Y)), Example((Y, -Y[::-1])), _extreme(*PAIRS)],
    "power": [
        Example((Y,), {"exponent": sign * e})
        for sign in (1.0, -1.0)
        for e in (0.5, 1.5, 2.5, 3.5, 2.0, 3.0, 4.0)
    ],
    "pow": [Example((Y, X)), _extreme(*TIES)],
    "sum": [
        _sum((1,), (0,)),
        _sum((1300,), (0,)),
        _sum((40, 41), (0, 1)),
        _sum((7, 600), (1,)),
        _sum((600, 5), (0,)),
        _sum((3, 4, 5), (0, 2)),
        _sum((3, 4), (1,)),
        Example((_complex((6, 90)),), {"axes": (1,)}),
        Example((_complex((600,)),), {"axes": (0,)}),
        Example((np.arange(12).reshape(3, 4),), {"axes": (0,)}, False),
    ],
    "broadcast": [
        Example((_values((5,), -1, 1),), {"shape": (3, 5), "dims": (1,)}),
        Example((_values((3, 1), -1, 1),), {"shape": (3, 4), "dims": (0, 1)}),
        Example((np.array(0.7),), {"shape": (2, 3), "dims": ()}),
        Example((_complex((3,)),), {"shape": (3, 2), "dims": (0,)}),
    ],
    "reshape": [
        Example((X,), {"shape": (21,)}),
        Example((X,), {"shape": (7, 3)}),
        Example((Z,), {"shape": (5, 1, 3)}),
        Example((np.array([2.0]),), {"shape": ()}),
    ],
    "transpose": [
        Example((X,), {"axes": (1, 0)}),
        Example((_values((2, 3, 4), -1, 1),), {"axes": (2, 0, 1)}),
        Example((Z,), {"axes": (1, 0)}),
    ],
    "slice": [r[0] for r in REGIONS],
    "pad": [r[1] for r in REGIONS],
    "update": [r[2] for r in REGIONS],
    "concatenate": [
        Example((X, Y), {"axis": 0}),
        Example((X, Y[:, :2], X[:, 1:2]), {"axis": 1}),
        Example((Z, W), {"axis": 0}),
    ],
    "iota": [
        Example((), {"shape": (3, 4), "axis": 1, "dtype": np.dtype(np.int64)}, False),
        Example((), {"shape": (5,), "axis": 0, "dtype": np.dtype(np.float64)}, False),
    ],
    "gather": [
        Example((BASE, POINTS), {"unique": True}),
        Example((BASE, POINTS, MORE_POINTS), {"unique": True}),
        Example((BASE, _int(1, 1, 4, 1)), {"unique": False}),
        Example((_complex((5,)), POINTS), {"unique": True}),
        Example((BASE, _int(3)[0]), {"unique": True}),
    ],
    "scatter_add": [
        Example((BASE, ROWS, POINTS), {"unique": True}),
        Example((BASE, ROWS, _int(2, 2, 2)), {"unique": False}),
        Example((BASE, ROWS[:, 0], POINTS, MORE_POINTS), {"unique": True}),
        Example((_complex((5,)), _complex((3,), 3), POINTS), {"unique": True}),
    ],
    "scatter": [
        Example((BASE, ROWS, POINTS), {"unique": True}),
        Example((BASE, ROWS, _int(2, 1, 2)), {"unique": False}),
        Example((BASE, ROWS[:, 0], POINTS, MORE_POINTS), {"unique": True}),
        Example((_complex((5,)), _complex((3,), 3), POINTS), {"unique": True}),
    ],
    "reduce_max": [
        Example((X,), {"axes": a} | more)
        for a in ((0,), (1,), (0, 1))
        for more in ({}, {"by_number": True})
    ],
    "reduce_min": [Example((X,), {"axes": a}) for a in ((0,), (1,), (0, 1))],
    "argmax": [_extreme(X), _extreme(np.array([1.0, 3.0, 3.0, 2.0]))],
    "argmin": [_extreme(X), _extreme(np.array([3.0, 1.0, 1.0, 2.0]))],
    "cumsum": [
        Example((X,), {"axis": 0, "reverse": False}),
        Example((X,), {"axis": 1, "reverse": True}),
        Example((_complex((9,)),), {"axis": 0, "reverse": False}),
        Example((INTEGERS[0],), {"axis": 0, "reverse": False}, False),
    ],
    "einsum": [
        Example((X, Y), {"subscripts": "ij,kj->ik"}),
        Example((X, Y), {"subscripts": "ij,ij->"}),
        Example((X, Y[0]), {"subscripts": "ij,j->ji"}),
        Example((Z, W), {"subscripts": "ij,ik->jk"}),
        Example((X, Y[:, 0]), {"subscripts": "ij,k->k"}),
    ],
    "stop_gradient": [_extreme(X)],
}

IN_ENGINE = {name for name, p in REGISTRY.items() if p.kind in ("control", "communication")}
"""Primitives that hold programs, or need ranks: tests/engine and tests/partition run them."""

CALLS_LIBM = {
    *("tan", "sinh", "cosh", "pow", "arctan2"),
    *("arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"),
}
"""Compiled code calls the C library, NumPy its own: equal to 4 units in the last place."""

CALLS_LIBM_IF_COMPLEX = {"log"}
