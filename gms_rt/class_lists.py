"""Lists of classes from files and as plain values: our TOML, dcmqi's metainfo JSON, and what runs and engines store.

    classes_from_file     a TOML file, dcmqi's JSON, or JSON as runs store it; told apart by their content
    classes_from_values   what a manifest or a graph's metadata holds → classes
    values_from_classes   classes → what is stored

A TOML file has one `[[class]]` for each class in the order of the mask's values, the first is 1:

    [[class]]
    name = "Breast lesion"
    category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }
    type = { value = "52988006", scheme = "SCT", meaning = "Lesion" }
    anatomy = { value = "76752008", scheme = "SCT", meaning = "Breast" }
    colour = "#ff4040"

Only `name` must be there. `description`, `type_modifier` and `anatomy_modifier` may be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json
from gms_rt.classes import Code, SegmentClass
from gms_rt.colours import Rgb, hex_from_rgb
from gms_rt.config import config_from_values, read_toml
from gms_rt.errors import ArtifactError, ConfigError, GmsError

CLASSES = "classes.json"  # in a run folder, where classes were named
MOST = 255  # the values of a byte, less the background
_CODES = {
    "category": "category",
    "type": "kind",
    "type_modifier": "kind_modifier",
    "anatomy": "anatomy",
    "anatomy_modifier": "anatomy_modifier",
}
_KEYS = ("name", "description", *_CODES, "colour")
# dcmqi's names (its segment schema) for what we take; the rest is for programs that draw by hand.
_DCMQI_CODES = {
    "category": "SegmentedPropertyCategoryCodeSequence",
    "type": "SegmentedPropertyTypeCodeSequence",
    "type_modifier": "SegmentedPropertyTypeModifierCodeSequence",
    "anatomy": "AnatomicRegionSequence",
    "anatomy_modifier": "AnatomicRegionModifierSequence",
}
_DCMQI_CODE = {"CodeValue": "value", "CodingSchemeDesignator": "scheme", "CodeMeaning": "meaning"}
# What DICOM allows in a code's parts (SH, SH, LO) and in a segment's label (LO) and description (ST).
_LENGTHS = {"value": 16, "scheme": 16, "meaning": 64, "name": 64, "description": 1024}


def classes_from_file(path: Path) -> tuple[SegmentClass, ...]:
    """The classes of a TOML or JSON file; what is wrong in it is told with its place."""
    if path.suffix.lower() == ".toml":
        return classes_from_values(_tables(read_toml(path), "class", path), where=path)
    try:
        value = read_json(path)
    except ArtifactError as error:
        raise ConfigError(error.what, where=path, fix="give a TOML file or dcmqi's metainfo JSON") from error
    if "segmentAttributes" in value:
        return classes_from_values(_dcmqi_tables(value, path), where=f"{path}: segmentAttributes")
    return classes_from_values(_tables(value, "classes", path), where=path)


def classes_from_values(values: Any, *, where: object, error: type[GmsError] = ConfigError) -> tuple[SegmentClass, ...]:
    """Classes from a list of plain tables; `error` is raised for what does not fit."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not 1 <= len(values) <= MOST:
        raise error(f"is not a list of 1 to {MOST} classes", where=where)
    classes = tuple(_class(value, f"{where}: class {n}", error) for n, value in enumerate(values, 1))
    names = [each.name for each in classes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise error(f"two classes are named '{twice}'", where=where, fix="give each a name of its own")
    return classes


def classes_from_run(run: Path) -> tuple[SegmentClass, ...]:
    """The classes that a run folder names; none where it names none."""
    return classes_from_file(run / CLASSES) if (run / CLASSES).is_file() else ()


def values_from_classes(classes: Sequence[SegmentClass]) -> list[dict[str, Any]]:
    """Plain tables that `classes_from_values` reads back; what is not set is left out."""
    return [_value(each) for each in classes]


def classes_value(classes: Sequence[SegmentClass]) -> dict[str, Any]:
    """The content of a run's `classes.json`, which `classes_from_file` reads back."""
    return {"classes": values_from_classes(classes)}


def _value(each: SegmentClass) -> dict[str, Any]:
    value: dict[str, Any] = {"name": each.name}
    if each.description:
        value["description"] = each.description
    for key, field in _CODES.items():
        code: Code | None = getattr(each, field)
        if code is not None:
            value[key] = {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}
    return value | {"colour": hex_from_rgb(each.colour)}


def _class(value: Any, where: str, error: type[GmsError]) -> SegmentClass:
    if not isinstance(value, Mapping):
        raise error("is not a table", where=where)
    unknown = next((key for key in value if key not in _KEYS), None)
    if unknown is not None:
        raise error(f"unknown key '{unknown}'", where=where, fix=f"known keys: {', '.join(_KEYS)}")
    if "name" not in value:
        raise error("lacks the key 'name'", where=where)
    fields: dict[str, Any] = {
        key: _text(value[key], key, where, error) for key in ("name", "description") if key in value
    }
    for key, field in _CODES.items():
        if key in value:
            fields[field] = _code(value[key], f"{where}: {key}", error)
    if "colour" in value:
        fields["colour"] = _colour(value["colour"], f"{where}: colour", error)
    for part, whole in (("kind_modifier", "kind"), ("anatomy_modifier", "anatomy")):
        if part in fields and whole not in fields:
            key = next(k for k, v in _CODES.items() if v == part)
            raise error(f"has {key} without {key.removesuffix('_modifier')}", where=where)
    return SegmentClass(**fields)


def _code(value: Any, where: str, error: type[GmsError]) -> Code:
    code = config_from_values(Code, value, where=where, error=error)
    for key in ("value", "scheme", "meaning"):
        _text(getattr(code, key), key, where, error)
    return code


def _text(value: Any, key: str, where: str, error: type[GmsError]) -> str:
    if not isinstance(value, str):
        raise error(f"{key} is not text", where=where)
    if key != "description" and not value.strip():
        raise error(f"{key} is empty", where=where)
    if len(value) > _LENGTHS[key]:
        raise error(f"{key} has {len(value)} characters, DICOM allows {_LENGTHS[key]}", where=where)
    if not value.isprintable() or "\\" in value:
        raise error(f"{key} has characters that DICOM does not allow", where=where)
    return value


def _colour(value: Any, where: str, error: type[GmsError]) -> Rgb:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    parts = list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts):
        return parts[0], parts[1], parts[2]
    raise error(f"{value!r} is not a colour", where=where, fix='write it as "#ff4040" or [255, 64, 64]')


def _tables(value: Mapping[str, Any], key: str, path: Path) -> Any:
    if set(value) != {key}:
        other = next((name for name in value if name != key), None)
        what = f"has no '{key}'" if other is None or key not in value else f"unknown key '{other}'"
        what = f"has no '{key}'" if key not in value else what
        raise ConfigError(what, where=path, fix="write one [[class]] with a name for each class of the mask")
    return value[key]


def _dcmqi_tables(value: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """dcmqi's segments in the order of their labels, as tables with our keys."""
    where = f"{path}: segmentAttributes"
    files = value["segmentAttributes"]
    if not isinstance(files, list) or not files or not all(isinstance(segments, list) for segments in files):
        raise ConfigError("is not a list of lists of segments", where=where)
    if len(files) > 1:
        raise ConfigError(
            f"describes {len(files)} label files, a mask is one", where=where, fix="put all segments into one list"
        )
    segments = files[0]
    if not all(isinstance(segment, Mapping) for segment in segments):
        raise ConfigError("has a segment that is not a table", where=where)
    labels = [segment.get("labelID") for segment in segments]
    if any(type(label) is not int for label in labels) or sorted(labels) != list(range(1, len(labels) + 1)):
        raise ConfigError(f"has the labelIDs {labels}, a mask's are 1 to the number of its classes", where=where)
    return [
        _dcmqi_table(segment, f"{where}: labelID {segment['labelID']}")
        for segment in sorted(segments, key=lambda segment: int(segment["labelID"]))
    ]


def _dcmqi_table(segment: Mapping[str, Any], where: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, name in _DCMQI_CODES.items():
        if name in segment:
            table[key] = _dcmqi_code(segment[name], f"{where}: {name}")
    for key in ("category", "type"):  # dcmqi's schema wants both
        if key not in table:
            raise ConfigError(f"lacks the key '{_DCMQI_CODES[key]}'", where=where)
    label, description = segment.get("SegmentLabel"), segment.get("SegmentDescription")
    # What dcmqi itself shows where a segment has no label.
    table["name"] = label or description or table["type"]["meaning"]
    if label and description:
        table["description"] = description
    if "recommendedDisplayRGBValue" in segment:
        table["colour"] = segment["recommendedDisplayRGBValue"]
    return table


def _dcmqi_code(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not set(_DCMQI_CODE) <= set(value):
        raise ConfigError(f"is not a code with {', '.join(_DCMQI_CODE)}", where=where)
    return {ours: value[theirs] for theirs, ours in _DCMQI_CODE.items()}
