"""Tables of a run file as validated settings; errors in one sentence that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from backsweep.errors import RunFileError


class Table(BaseModel):
    """Settings of which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @classmethod
    def read(cls, table: Mapping[str, Any], where: str = "", folders: Sequence[Path] = ()) -> Self:
        """Validate a table.

        Parameters
        ----------
        table : mapping
        where : str
            Path of the table in the run file, for errors.
        folders : sequence of Path
            Where files are looked for.

        Raises
        ------
        RunFileError
            Naming the first key that is wrong, its value, what is allowed, the nearest match.
        """
        try:
            return cls.model_validate(table, context={"folders": tuple(folders)})
        except ValidationError as error:
            raise RunFileError(_explained(error, cls, where)) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest of the known names, and the list of them."""
    listed = list(known)
    near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known are: {', '.join(listed)}"


def _explained(error: ValidationError, table: type[BaseModel], where: str) -> str:
    first = error.errors(include_url=False)[0]
    path, kind = first["loc"], first["type"]
    key = ".".join(str(p) for p in ((where,) if where else ()) + path)
    if kind == "extra_forbidden":
        return f"{key} is not known; {did_you_mean(str(path[-1]), _keys_at(table, path[:-1]))}"
    if kind == "missing":
        return f"{key} is missing; write {path[-1]} = ... in the table [{_parent(key)}]"
    if kind == "literal_error":
        expected = first["ctx"]["expected"].replace(" or ", ", ").split(", ")
        return f"{key} = {first['input']!r} is not allowed; " + did_you_mean(
            str(first["input"]), [e.strip("'") for e in expected]
        )
    message = first["msg"].removeprefix("Value error, ")
    if kind != "value_error":
        message = message[0].lower() + message[1:]
    return f"{key} = {first['input']!r}: {message}" if path else f"{where or 'run file'}: {message}"


def _parent(key: str) -> str:
    return key.rpartition(".")[0] or "top of the file"


def _keys_at(table: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Keys of the nested table at a path."""
    current: Any = table
    for part in path:
        if isinstance(part, str) and part in getattr(current, "model_fields", {}):
            current = _nested(current.model_fields[part].annotation)
    return list(getattr(current, "model_fields", {}))


def _nested(annotation: Any) -> Any:
    """The table in an annotation such as `list[Table]` or `Table | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _nested(argument)
        if found is not None:
            return found
    return None
