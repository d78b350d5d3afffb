"""A report as JSON: for machines, for `bench compare`, and to render again. `report_schema` says what is in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from gms_rt.artifacts import check_format, read_json
from gms_rt.bench.results import BenchResult
from gms_rt.config import config_from_values
from gms_rt.errors import ArtifactError
from gms_rt.report.model import REPORT_FORMAT, REPORT_VERSION, Report


def json_from_report(report: Report) -> str:
    """The report as JSON text; pixels of pictures are left out."""
    value = dataclasses.asdict(report)
    for field in dataclasses.fields(BenchResult):
        if report.bench and field.metadata.get("later") and not value["bench"][field.name]:
            del value["bench"][field.name]
    for gallery in value["galleries"]:
        for card in gallery["cards"]:
            for picture in card["pictures"]:
                picture["data"] = ""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise ArtifactError("a report cannot hold a number that is not finite") from error


def report_from_json(path: Path) -> Report:
    """A report written by `json_from_report`, checked."""
    value = read_json(path)
    check_format(value, REPORT_FORMAT, REPORT_VERSION, where=path, fix="write one: gms-rt bench --out REPORT.json")
    return config_from_values(Report, value, where=path, error=ArtifactError)
