"""Tables of a run file as validated settings; errors in one sentence that names the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backsweep.errors import RunFileError, did_you_mean

# Strict: a text or a boolean is no number.
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


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
            # What is missing comes last: a misspelt key is both unknown and missing.
            found = sorted(error.errors(include_url=False), key=lambda e: e["type"] == "missing")
            raise RunFileError(_explained(found, cls, table, where)) from None


# --------------------------------------------------------------------------- errors of pydantic

_Place = tuple[int | str, ...]

#: What is needed where a value is of another kind.
_NEEDED = {
    "model_type": "a table",
    "dict_type": "a table",
    "list_type": "a list",
    "tuple_type": "a list",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


def _explained(
    errors: Sequence[Any], table: type[BaseModel], data: Mapping[str, Any], where: str
) -> str:
    """One sentence about the first error."""
    path = _keys(errors[0], data)
    if len(path) < len(errors[0]["loc"]):
        # In a union: each of its branches has errors, under a key and the branch's name.
        start = errors[0]["loc"][: _n_common(errors[0], data)]
        errors = [e for e in errors if e["loc"][: len(start)] == start]
        is_of_kind = [e for e in errors if _keys(e, data) != start or e["type"] not in _NEEDED]
        if not is_of_kind:
            needed = dict.fromkeys(_needed(e, table, start) for e in errors)
            return f"{_named(where, start)} = {_shown(errors[0]['input'])}: {_either(needed)}"
        errors, path = is_of_kind, _keys(is_of_kind[0], data)
    return _sentence(errors[0], path, table, where)


def _sentence(error: Any, path: _Place, table: type[BaseModel], where: str) -> str:
    key, kind, value = _named(where, path), error["type"], _shown(error["input"])
    if kind == "extra_forbidden":
        return f"{key} is not known; {did_you_mean(str(path[-1]), _keys_at(table, path[:-1]))}"
    if kind == "missing" and isinstance(path[-1], int):
        return f"{_named(where, path[:-1])} = {value} has too few values"
    if kind == "missing":
        place = f"the table [{_named(where, path[:-1])}]" if key != path[-1] else "the run file"
        return f"{key} is missing; write {path[-1]} = ... in {place}"
    if kind == "literal_error":
        expected = error["ctx"]["expected"].replace(" or ", ", ").split(", ")
        hint = did_you_mean(str(error["input"]), [e.strip("'") for e in expected])
        return f"{key} = {value} is not allowed; {hint}"
    if kind in ("too_long", "too_short"):
        limit = error["ctx"].get("max_length") or error["ctx"].get("min_length")
        bound = "most" if kind == "too_long" else "least"
        return f"{key} = {value}: at {bound} {limit} value(s) are needed"
    if kind in _NEEDED:
        return f"{key} = {value}: {_either([_needed(error, table, path)])}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    return f"{key} = {value}: {message}" if path else f"{where or 'run file'}: {message}"


def _n_common(error: Any, data: Any) -> int:
    """How many first parts of an error's place are keys of the data."""
    for number, part in enumerate(error["loc"]):
        if not _has(data, part):
            return number
        data = data[part]
    return len(error["loc"])


def _keys(error: Any, data: Any) -> _Place:
    """An error's place without the names of a union's branches, which are no keys."""
    path: list[int | str] = []
    for number, part in enumerate(error["loc"]):
        is_missing = error["type"] == "missing" and number == len(error["loc"]) - 1
        if is_missing or _has(data, part):
            path.append(part)
            data = None if is_missing else data[part]
    return tuple(path)


def _has(data: Any, part: int | str) -> bool:
    if isinstance(part, int):
        return isinstance(data, list | tuple) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _needed(error: Any, table: type[BaseModel], path: _Place) -> str:
    keys = ", ".join(_keys_at(table, path)) if error["type"] == "model_type" else ""
    return _NEEDED[error["type"]] + (f" of {keys}" if keys else "")


def _either(needed: Iterable[str]) -> str:
    listed = list(needed)
    return f"{(', or ' if any(',' in n for n in listed) else ' or ').join(listed)} is needed"


def _named(where: str, path: _Place) -> str:
    return ".".join(str(p) for p in ((where,) if where else ()) + tuple(path))


def _shown(value: Any, longest: int = 70) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def _keys_at(table: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Keys of the nested table at a path."""
    current: Any = table
    for part in path:
        model = _table_in(current)
        if model is None:  # a list of tables, or tables by name
            current = get_args(current)[-1] if get_args(current) else None
        else:
            current = model.model_fields[str(part)].annotation
    model = _table_in(current)
    return [] if model is None else list(model.model_fields)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table of an annotation such as `Table` or `Table | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        return next(filter(None, map(_table_in, get_args(annotation))), None)
    return None
