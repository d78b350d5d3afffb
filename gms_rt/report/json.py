"""A report as JSON: for machines, for `bench compare`, and to render again. Its schema is `schema.json` beside this."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json
from gms_rt.errors import ArtifactError
from gms_rt.report.codec import from_plain, schema_of, to_plain
from gms_rt.report.model import REPORT_FORMAT, REPORT_VERSION, Report

SCHEMA = "schema.json"


def render(report: Report) -> str:
    """The report as JSON text; pixels of pictures are left out."""
    value = to_plain(report)
    for gallery in value["galleries"]:
        for card in gallery["cards"]:
            for picture in card["pictures"]:
                picture["data"] = ""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_report(path: Path) -> Report:
    """A report written by `render`, checked."""
    value = read_json(path)
    if value.get("format") != REPORT_FORMAT:
        raise ArtifactError("is not a gms-rt report", where=path, fix="write one: gms-rt bench --out REPORT.json")
    version = value.get("version")
    if not isinstance(version, int) or version > REPORT_VERSION:
        raise ArtifactError(
            f"has report version {version!r}, this program reads up to {REPORT_VERSION}",
            where=path,
            fix="update gms-rt",
        )
    return from_plain(Report, value, path)


def schema() -> dict[str, Any]:
    """The schema that the data model has now."""
    return {"title": REPORT_FORMAT, "version": REPORT_VERSION, **schema_of(Report)}


def committed_schema() -> dict[str, Any]:
    """The schema as published."""
    text = resources.files("gms_rt.report").joinpath(SCHEMA).read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    return value
