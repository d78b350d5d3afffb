"""Writing a report: one file by its ending, or all four renderings into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gms_rt.artifacts import write_bytes
from gms_rt.bench.subjects import labels
from gms_rt.errors import UsageError
from gms_rt.report.csv import csv_from_report
from gms_rt.report.html import html_from_report
from gms_rt.report.json import json_from_report
from gms_rt.report.markdown import markdown_from_report
from gms_rt.report.model import Report

RENDERERS: dict[str, Callable[[Report], str]] = {
    ".html": html_from_report,
    ".json": json_from_report,
    ".md": markdown_from_report,
    ".csv": csv_from_report,
}


def report_files(target: Path) -> list[Path]:
    """The files that a report at `target` would consist of; a wrong target is refused before any work is done."""
    if target.is_dir() or not target.suffix:
        if target.exists() and not target.is_dir():
            raise UsageError("is a file, not a folder", where=target, fix="choose another place with --out")
        return [target / f"report{ending}" for ending in RENDERERS]
    if target.suffix.lower() not in RENDERERS:
        raise UsageError(
            f"no report can end in '{target.suffix}'",
            where=target,
            fix=f"use a folder or {', '.join(RENDERERS)}",
        )
    return [target]


def write_report(report: Report, target: Path) -> list[Path]:
    """Write `target` by its ending, or `report.html`, `.json`, `.md` and `.csv` into it where it is a folder."""
    files = report_files(target)
    for file in files:
        write_bytes(file, RENDERERS[file.suffix.lower()](report).encode())
    return files


def default_folder(engines: tuple[Path, ...], device: str) -> Path:
    """Where the report of a bench goes unless told: `reports/<engine>-<device>/`."""
    return Path("reports") / f"{'+'.join(labels([str(e) for e in engines])).replace('/', '-')[:80]}-{device}"
