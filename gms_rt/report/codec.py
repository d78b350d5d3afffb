"""Frozen dataclasses to plain JSON values, back, and their JSON schema; all three follow the type hints."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from gms_rt.errors import ArtifactError

T = TypeVar("T")
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def to_plain(value: Any) -> Any:
    """Dictionaries, lists and scalars; a number that JSON cannot hold is refused."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ArtifactError(f"a report cannot hold the number {value}")
    return value


def from_plain(kind: type[T], value: Any, where: object = "report") -> T:
    """The dataclass of a plain value; a wrong type, an unknown or a missing key is refused by name."""
    result: T = _read(kind, value, str(where))
    return result


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON schema (2020-12) of a dataclass."""
    definitions: dict[str, Any] = {}
    root = _schema(kind, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in options:
            return None
        return _read(next(o for o in options if o is not types.NoneType), value, where)
    if origin is typing.Literal:
        if value in options:
            return value
        raise ArtifactError(f"{value!r} is not one of {', '.join(map(repr, options))}", where=where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ArtifactError("is not a list", where=where)
        return tuple(_read(options[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _read_object(hint, value, where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is not float and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise ArtifactError(f"{value!r} is not of type {_NAMES[hint]}", where=where)


def _read_object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ArtifactError("is not an object", where=where)
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    needed = {f.name for f in fields if f.default is dataclasses.MISSING}
    unknown, missing = value.keys() - {f.name for f in fields}, needed - value.keys()
    if unknown or missing:
        problem = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
        raise ArtifactError(f"has {problem}", where=where)
    return kind(**{key: _read(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(o for o in options if o is not types.NoneType)
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    if origin is typing.Literal:
        return {"enum": list(options)}
    if origin is tuple:
        return {"type": "array", "items": _schema(options[0], definitions)}
    if dataclasses.is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = {}  # keeps the place while its fields are read
            definitions[name] = _schema_object(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _NAMES[hint]}


def _schema_object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip().split("\n\n")[0],
        "properties": {f.name: _schema(hints[f.name], definitions) for f in fields},
        # Everything is always written, so that a reader need not guess.
        "required": [f.name for f in fields],
        "additionalProperties": False,
    }
