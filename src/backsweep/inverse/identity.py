"""By what an inversion is known, so that its records are never taken for those of another."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from backsweep import config
from backsweep.inverse.inversion import Inversion
from backsweep.inverse.problem import Described
from backsweep.version import __version__

MAX_WHOLE = 1 << 28
"""Bytes up to which a file's checksum is that of all its bytes."""

_PIECE = 1 << 20


def identity_of_problem(described: Described) -> dict[str, str]:
    """Labels and texts of all that decides what a problem's misfits are, as far as it can be told.

    Ranks, threads and budgets are not part of it: bits do not depend on them.
    """
    found = {
        "backsweep": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": version("numba"),
        "compiler": "off" if config.is_jit_disabled() else "on",
        "number of items": str(len(described.problem.items)),
        "module of the problem": _source(described.problem),
    }
    found |= {f"start of {name}": text_of(value) for name, value in described.start.items()}
    for kind in ("masks", "scales"):
        given = getattr(described.problem, kind, None) or {}
        found |= {f"{kind} of {name}": text_of(value) for name, value in given.items()}
    if hasattr(described.problem, "identity"):
        found |= {str(k): str(v) for k, v in described.problem.identity().items()}
    return found


def identity_of(described: Described, inversion: Inversion) -> dict[str, str]:
    """Of all that decides what an inversion finds. Labels of settings are the keys of run files."""
    found = identity_of_problem(described)
    for number, stage in enumerate(inversion.stages):
        settings = {"evaluations": stage.evaluations, **stage.settings}
        found |= {f"stages.{number}.{k}": text_of(v) for k, v in settings.items()}
    for field in fields(inversion):
        if field.name not in ("stages", "unknowns", "regularisers"):
            found[f"optimiser.{field.name}"] = text_of(getattr(inversion, field.name))
    for name, unknown in inversion.unknowns.items():
        for field in fields(unknown):
            found[f"parameters.{name}.{field.name}"] = text_of(getattr(unknown, field.name))
    for name, regularisers in inversion.regularisers.items():
        found[f"regularisation of {name}"] = text_of(regularisers)
    return found


def difference(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The labels whose texts differ."""
    return [label for label in dict.fromkeys([*was, *now]) if was.get(label) != now.get(label)]


def text_of(value: Any) -> str:
    """A short text that tells one value from another: arrays by a checksum."""
    if is_dataclass(value) and not isinstance(value, type):
        own = (f"{f.name}={text_of(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__name__}({', '.join(own)})"
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(f"{value.dtype} {value.shape}".encode(), digest_size=8)
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {text_of(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return str(value)


def checksum_of_file(path: Path) -> str:
    """Of its bytes; of a large file those of 256 pieces of 1 MiB and its size."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        starts = range(0, size, _PIECE)
        if size > MAX_WHOLE:
            n = MAX_WHOLE // _PIECE
            starts = [k * (size - _PIECE) // (n - 1) for k in range(n)]  # type: ignore[assignment]
        for start in starts:
            file.seek(start)
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _source(problem: Any) -> str:
    """The text of the module in which the problem's class is written."""
    try:
        text = Path(inspect.getfile(type(problem))).read_bytes()
    except (OSError, TypeError):
        return type(problem).__qualname__
    return hashlib.blake2b(text, digest_size=8).hexdigest()
