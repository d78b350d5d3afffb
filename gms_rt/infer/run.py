"""A whole run: every source through the pipeline, cases.csv in the sources' order, summary.json, run.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import atomic_path, sha256_file, write_json
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import MANIFEST
from gms_rt.errors import GmsError
from gms_rt.infer.case import Case, Task
from gms_rt.infer.confidence import DEFINITION
from gms_rt.infer.journal import Journal
from gms_rt.infer.measure import CaseTable, Row, as_text
from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.pipeline import Pipeline
from gms_rt.infer.predict import Predictor
from gms_rt.infer.sources import Found, Source
from gms_rt.infer.summary import NOT_CLINICAL, Summary, stage_report, with_referral
from gms_rt.runtime.device import package_version

Report = Callable[[Case, list[Row]], None]

NOTES = (
    NOT_CLINICAL,
    "Masks have the size of the image as it is seen: EXIF rotation is applied first, DICOM and NIfTI stay as stored.",
    "Transparent pixels are seen over black.",
    "Probabilities are brought to source size before the threshold.",
)


def run_cases(
    found: Found,
    engine: Engine,
    out: OutFolder,
    options: InferOptions,
    *,
    resume: bool = False,
    workers: int = 0,
    report: Report | None = None,
) -> Summary:
    """Segment everything that was found. The folder is locked by the caller; an interrupt leaves whole files.

    A run without `resume` replaces the results of the run before it in the same folder.
    """
    fingerprint = engine_fingerprint(engine)
    record = run_record(engine, fingerprint, options, found, workers_for(workers))
    with Journal(out.root, options.key(engine_identity(engine, fingerprint)), resume=resume) as journal:
        write_json(out.root / "run.json", record | {"status": "running"})
        summary = Summary(options.refer_below)
        status = "failed"
        try:
            with atomic_path(out.root / "cases.csv") as part, part.open("w", encoding="utf-8", newline="") as stream:
                table = CaseTable(stream)
                try:
                    for case in segmented(found.sources, engine, out, options, journal, summary, workers=workers):
                        rows = [with_referral(row, options.refer_below) for row in case.rows]
                        for row in rows:
                            table.add(row)
                            summary.add(row)
                        if report is not None:
                            report(case, rows)
                except KeyboardInterrupt:
                    status = "interrupted"
            status = "done" if status == "failed" else status
        finally:
            # After a full disk these fail too; the error that counts is the first.
            with contextlib.suppress(GmsError, OSError):
                write_json(out.root / "summary.json", summary.value())
                write_json(out.root / "run.json", record | {"status": status, "ended": now()})
        if status == "interrupted":
            raise KeyboardInterrupt
    return summary


def segmented(
    sources: Iterable[Source],
    engine: Engine,
    out: OutFolder,
    options: InferOptions,
    journal: Journal,
    summary: Summary,
    *,
    workers: int = 0,
    failed_too: bool = False,
) -> Iterator[Case]:
    """Cases in order, each recorded in the journal as soon as its files are in place."""

    def done(case: Case) -> None:
        if not case.reused:
            journal.add(case.source.name, case.digest, case.rows, case.files)

    task = Task(out, options, engine.manifest.name, engine_fingerprint(engine))
    pipeline = Pipeline(
        Predictor(engine, options),
        task,
        workers=workers_for(workers),
        find=lambda name, digest: journal.find(name, digest, failed_too=failed_too),
        done=done,
    )
    start = time.perf_counter()
    try:
        for case in pipeline.run(sources):
            summary.add_source(case.reused)
            yield case
    finally:
        summary.seconds += time.perf_counter() - start
        threads = {"decode": pipeline.workers, "infer": pipeline.lanes, "write": pipeline.workers}
        summary.stages = stage_report(pipeline.busy, threads, time.perf_counter() - start)


def workers_for(asked: int) -> int:
    """Threads that decode, and as many that write: what is asked, else one for each core, four at most."""
    return asked or max(1, min(4, len(os.sched_getaffinity(0))))


def engine_fingerprint(engine: Engine) -> str:
    """The hash of the engine's manifest, which holds the hashes of all its files."""
    return sha256_file(engine.folder / MANIFEST)


def engine_identity(engine: Engine, fingerprint: str) -> str:
    """What decides an engine's arithmetic: its files, and what runs them."""
    info = engine.runner.info
    return f"{fingerprint} {info.backend} {info.device} {info.execution}"


def run_record(engine: Engine, fingerprint: str, options: InferOptions, found: Found, workers: int) -> dict[str, Any]:
    """What made these results: the head of run.json."""
    info = engine.runner.info
    packages = ("numpy", "opencv-python-headless", "pillow", "pydicom", "highdicom", "openvino")
    return {
        "tool": "gms-rt infer",
        "notes": list(NOTES),
        "versions": {"gms-rt": __version__} | {name: package_version(name) for name in packages},
        "engine": {
            "name": engine.manifest.name,
            "folder": as_text(str(Path(os.path.abspath(engine.folder)))),  # noqa: PTH100 (links keep their names)
            "precision": engine.manifest.precision,
            "manifest_sha256": fingerprint,
        },
        "device": dataclasses.asdict(info),
        "options": dataclasses.asdict(options) | {"workers": workers},
        "confidence": DEFINITION,
        "inputs": [as_text(text) for text in found.inputs],
        "root": as_text(str(found.root)),
        "sources": len(found.sources),
        "other_files_skipped": found.skipped,
        "started": now(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
