"""What `gms-rt infer` prints: where results go, each case as it is done, the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console, Progress
from gms_rt.engine.loaded import Engine
from gms_rt.errors import CasesFailedError
from gms_rt.infer import OutFolder
from gms_rt.infer.case import ScanCase
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.sources import FoundSources
from gms_rt.infer.summary import Summary


def announce(
    console: Console, engine: Engine, target: Path, found: FoundSources | None, *, deidentify: bool = False
) -> None:
    """Say which engine runs where, and what it will segment; with `deidentify` not from which folder."""
    info = engine.runner.info
    console.say(f"engine: {engine.folder} ({engine.manifest.precision}, runs as {info.execution} on {info.device})")
    console.say(f"results: {target}")
    if found is not None:
        skipped = f", {found.skipped} other files skipped" if found.skipped else ""
        series = [source.series for source in found.sources if source.series is not None]
        of = f", {len(series)} of them series of {sum(len(s.paths) for s in series)} slices" if series else ""
        below = "" if deidentify else f" below {found.root}"
        console.say(f"sources: {len(found.sources)}{below}{of}{skipped}")
    if console.json:
        _event(
            "start",
            engine=str(engine.folder),
            device=info.device,
            notice=engine.notice,
            execution=info.execution,
            out=str(target),
            sources=None if found is None else len(found.sources),
        )


def case_reporter(console: Console, bar: Progress, hint: bool) -> Callable[[ScanCase, list[CaseRow]], None]:
    """A function that tells of each finished case; with `hint` also, once, how to get DICOM SEG."""
    pending = [hint]

    def report(case: ScanCase, rows: list[CaseRow]) -> None:
        if pending[0] and case.kind == "dicom":
            pending[0] = False
            console.note("DICOM SEG is not written: pip install 'gms-rt[dicom-seg]'")
        failed = [row for row in rows if row["status"] == "failed"]
        if console.json:
            for row in rows:
                _event("case", done_before=case.reused, **row)
        bar.advance(1, f"{len(rows)} frames" if case.multi and len(rows) > 1 else None)
        if failed and not console.json:
            bar.say("some failed")

    return report


def frame_reporter(bar: Progress) -> Callable[[ScanCase, int], None]:
    """A function that tells how far a source of many frames is."""

    def report(case: ScanCase, count: int) -> None:
        if case.multi:
            bar.say(f"{count} frames")

    return report


def end_run(console: Console, summary: Summary, folder: OutFolder) -> int:
    """Print the summary; failed cases are an error."""
    if console.json:
        _event("end", **summary.value())
    elif console.quiet:
        click.echo(str(folder.root))
    else:
        click.echo(summary.screen(str(folder.root)))
    if summary.failed:
        raise CasesFailedError(
            f"{summary.failed} of {summary.cases} cases failed, the rest are written",
            where=folder.root / "cases.csv",
        )
    return 0


def _event(kind: str, **values: Any) -> None:
    click.echo(json.dumps({"event": kind, **values}, ensure_ascii=True, allow_nan=False))
