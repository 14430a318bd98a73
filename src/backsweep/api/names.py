"""The user's names for the values of a step, for printed programs and generated code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType
from typing import Any


def argument_names(function: Any, position: int, count: int) -> list[str]:
    """Names of the leaves of an argument, where the function unpacks it by name.

    `u, u_prev = carry` names the leaves of `carry`; a single leaf has the argument's name.
    Empty texts where nothing is found.
    """
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or position >= code.co_argcount:
        return [""] * count
    argument = code.co_varnames[position]
    if count == 1:
        return [argument]
    names = _unpacked(code).get(argument, [])
    return names if len(names) == count else [""] * count


def leaf_names(function: Any, paths: Sequence[str]) -> list[str]:
    """Names of all leaves of a function's arguments: argument, then the path in its container.

    Parameters
    ----------
    function : callable
    paths : sequence of str
        In the tuple of arguments: "[0]", "[1]['velocity']".
    """
    code = getattr(function, "__code__", None)
    known = code.co_varnames[: code.co_argcount] if isinstance(code, CodeType) else ()
    names = []
    for path in paths:
        number, _, rest = path.removeprefix("[").partition("]")
        is_known = number.isdigit() and int(number) < len(known)
        names.append(known[int(number)] + rest if is_known else "")
    return names


@lru_cache(maxsize=128)
def _unpacked(code: CodeType) -> dict[str, list[str]]:
    """What `a, b = x` says about x, in the source of a function."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Name):
            continue
        for target in node.targets:
            if isinstance(target, ast.Tuple):
                names = [t.id for t in target.elts if isinstance(t, ast.Name)]
                if len(names) == len(target.elts):
                    found.setdefault(node.value.id, names)
    return found
