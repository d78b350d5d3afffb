"""The JSON schema of a report, made from the data model's type hints, so that it is always the model's."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from gms_rt.report.model import REPORT_FORMAT, REPORT_VERSION, Report

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def report_schema() -> dict[str, Any]:
    """The schema (2020-12) that every report of this version follows."""
    definitions: dict[str, Any] = {}
    root = _schema(Report, definitions)
    head = {"title": REPORT_FORMAT, "version": REPORT_VERSION}
    return {**head, "$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}


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
            definitions[name] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _NAMES[hint]}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip().split("\n\n")[0],
        "properties": {f.name: _schema(hints[f.name], definitions) for f in fields},
        # Everything is always written, so that a reader need not guess, but for what older reports do not have.
        "required": [f.name for f in fields if not f.metadata.get("later")],
        "additionalProperties": False,
    }
