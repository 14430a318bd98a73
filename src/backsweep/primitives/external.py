"""A step that the user brings, with its own reverse: called, never looked into.

* `external_call`: (consts, state, x) -> (next state, y);
* `external_tangent`: linear in the tangents; it stands between `linearize` and `transpose` and
  is never run, because the user's object has no forward mode;
* `external_reverse`: (consts, state, x, cotangents) -> cotangents; its transpose.

Each is one equation with the object in its parameters, so that scans, schedules, stores and
activity need to know nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from backsweep.errors import ForwardModeError
from backsweep.ir import ArrayType, Primitive
from backsweep.primitives.registry import declare


class ExternalStep(Protocol):
    """The user's object with its containers and checks, on flat lists of arrays.

    Known by identity; its text is the name of the user's class, the same in every process.
    """

    def advance(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """(consts, state, x) -> (next state, y)."""
        ...

    def reverse(
        self,
        inputs: Sequence[np.ndarray],
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
    ) -> tuple[np.ndarray, ...]:
        """Cotangents of the wanted inputs; None among `cotangents` is zero."""
        ...


def refuse_forward_mode(step: ExternalStep) -> NoReturn:
    raise ForwardModeError(
        "forward mode and second derivatives (jvp, linearize, hvp, grad of grad) cannot go through "
        f"the external step {step}, which has only advance and reverse: use grad, value_and_grad "
        "or vjp, once"
    )


def _type_call(p: Any, *types: Any) -> tuple[ArrayType, ...]:
    return p["out_types"]


def _type_tangent(p: Any, *types: Any) -> tuple[ArrayType, ...]:
    return tuple(t for t, active in zip(p["out_types"], p["active_out"], strict=True) if active)


def _type_reverse(p: Any, *types: Any) -> tuple[ArrayType, ...]:
    inputs = types[: len(p["active_in"])]
    return tuple(
        ArrayType(t.shape, t.dtype) for t, a in zip(inputs, p["active_in"], strict=True) if a
    )


def _evaluate_reverse(p: Any, *args: Any) -> tuple[np.ndarray, ...]:
    n = len(p["active_in"])
    given = iter(args[n:])
    cotangents = [next(given) if active else None for active in p["active_out"]]
    return p["step"].reverse(args[:n], cotangents, p["active_in"])


external_call = declare(
    Primitive("external_call", "control", _type_call, lambda p, *args: p["step"].advance(args))
)
external_tangent = declare(
    Primitive(
        "external_tangent",
        "control",
        _type_tangent,
        lambda p, *args: refuse_forward_mode(p["step"]),
    )
)
external_reverse = declare(
    Primitive("external_reverse", "control", _type_reverse, _evaluate_reverse)
)
