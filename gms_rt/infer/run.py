"""A whole run: every source through the pipeline, cases.csv in the sources' order, summary.json, run.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import sha256_file, write_json
from gms_rt.class_lists import values_from_classes
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import CERTIFICATE, MANIFEST
from gms_rt.errors import GmsError
from gms_rt.infer.bids import write_dataset_description
from gms_rt.infer.case import ScanCase
from gms_rt.infer.case_settings import CaseSettings
from gms_rt.infer.confidence import DEFINITION
from gms_rt.infer.deidentify import Deidentifier, deidentifier_for_folder
from gms_rt.infer.earlier import check_replaceable, is_same_root
from gms_rt.infer.journal import Journal
from gms_rt.infer.measure import CaseRow, as_text
from gms_rt.infer.options import BIDS, InferOptions
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.pipeline import Pipeline
from gms_rt.infer.predict import Predictor
from gms_rt.infer.result import Maker
from gms_rt.infer.sources import FoundSources, Source
from gms_rt.infer.summary import NOT_CLINICAL, Summary, stage_report, with_referral
from gms_rt.infer.tables import RunTables
from gms_rt.runtime.device import package_version

OnFrame = Callable[[ScanCase, int], None]
OnCase = Callable[[ScanCase, list[CaseRow]], None]

NOTES = (
    NOT_CLINICAL,
    "Masks have the size of the image as it is seen: EXIF rotation is applied first, DICOM and NIfTI stay as stored.",
    "Transparent pixels are seen over black.",
    "Probabilities are brought to source size before the threshold.",
)


@dataclass(frozen=True)
class InferJob:
    """What a run over sources and a watch of a folder have in common."""

    engine: Engine
    out: OutFolder  # locked by the caller
    options: InferOptions
    workers: int = 0  # threads that decode, and as many that write; 0 is one for each core, four at most
    on_case: OnCase | None = None  # called with each finished case and its rows
    on_frame: OnFrame | None = None  # called by any thread with a case and the number of its frames that are written

    def __post_init__(self) -> None:
        self.out.layout = self.options.layout

    def describe(self, source: Path | None) -> None:
        """Write what describes the output folder as a whole, where its layout has such files."""
        if self.options.layout == BIDS:
            manifest = self.engine.manifest
            write_dataset_description(self.out.root, manifest.name, manifest.segment_classes, source)

    @property
    def threads(self) -> int:
        """`workers`, or what 0 stands for."""
        return self.workers or max(1, min(4, len(os.sched_getaffinity(0))))

    @property
    def key(self) -> str:
        """A fingerprint of all that decides the results: the engine's files, what runs them, the options."""
        info = self.engine.runner.info
        return self.options.key(f"{self.fingerprint} {info.backend} {info.device} {info.execution}")

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the engine's manifest, which holds the hashes of all its files."""
        return sha256_file(self.engine.folder / MANIFEST)

    @cached_property
    def deidentifier(self) -> Deidentifier | None:
        """What replaces all that identifies a person, where that is asked for."""
        return deidentifier_for_folder(self.out.root) if self.options.deidentify else None

    @property
    def maker(self) -> Maker:
        """Who makes the results, as they name it."""
        certificate = self.engine.folder / CERTIFICATE
        return Maker(
            self.engine.manifest.name,
            self.fingerprint,
            __version__,
            sha256_file(certificate) if certificate.is_file() else None,
            dataclasses.asdict(self.options),
        )

    @property
    def settings(self) -> CaseSettings:
        """What every case shares."""
        return CaseSettings(
            self.out,
            Predictor(self.engine, self.options),
            self.maker,
            self.key,
            self.engine.manifest.segment_classes,
            on_frame=self.on_frame,
            deidentifier=self.deidentifier,
        )

    def refer(self, rows: list[CaseRow]) -> list[CaseRow]:
        """The rows with their `refer` column."""
        return [with_referral(row, self.options.refer_below) for row in rows]


def run_cases(found: FoundSources, job: InferJob, *, resume: bool = False, replace: bool = False) -> Summary:
    """Segment everything that was found; an interrupt leaves whole files.

    A run without `resume` replaces the results of the run before it in the same folder. Results that it would not make
    again, of other scans, are deleted with `replace` only.
    """
    out = job.out
    if job.deidentifier is not None:
        found = job.deidentifier.sources(found)
    if not replace:
        check_replaceable(out.root, found, keep=job.key if resume else None)
    resume = resume and is_same_root(out.root, found)
    record = run_record(job, found)

    def save_record(**end: str) -> None:
        value = record | end
        write_json(out.root / "run.json", job.deidentifier.record(value) if job.deidentifier else value)

    with Journal(out.root, job.key, resume=resume) as journal:
        save_record(status="running")
        job.describe(None if job.options.deidentify else found.root)
        forget_regrouped(journal, found.sources)
        summary = Summary(job.options.refer_below)
        status = "failed"
        try:
            with RunTables(out.root, series=any(source.series for source in found.sources)) as tables:
                try:
                    for cases in segment_sources(found.sources, job, journal, summary):
                        told = [job.refer(case.rows) for case in cases]
                        every = [row for rows in told for row in rows]
                        tables.add(every)
                        for row in every:
                            summary.add(row)
                        if job.on_case is not None:
                            for case, rows in zip(cases, told, strict=True):
                                job.on_case(case, rows)
                except KeyboardInterrupt:
                    status = "interrupted"
            status = "done" if status == "failed" else status
        finally:
            # After a full disk these fail too; the error that counts is the first.
            with contextlib.suppress(GmsError, OSError):
                write_json(out.root / "summary.json", summary.value())
                save_record(status=status, ended=now())
        if status == "interrupted":
            raise KeyboardInterrupt
    return summary


def forget_regrouped(journal: Journal, sources: Iterable[Source]) -> None:
    """Remove results of files that are now part of another case: slices that became a series, or are none any more."""
    names: set[str] = set()
    files: set[str] = set()
    for source in sources:
        names.add(source.name)
        files |= {as_text(name) for name in source.members or (source.name,)}
    for name, entry in list(journal.entries.items()):
        if name not in names and any(row.get("source") in files for row in entry.rows):
            journal.forget(name)


def segment_sources(
    sources: Iterable[Source], job: InferJob, journal: Journal, summary: Summary, *, failed_too: bool = False
) -> Iterator[list[ScanCase]]:
    """Cases in order, as many at once as there are: each is recorded in the journal once its files are in place and on
    the disk, and only then told of.

    With `failed_too` a source that failed before is not tried again.
    """

    def done(cases: Sequence[ScanCase]) -> None:
        journal.add([(case.source.name, case.digest, case.rows, case.files) for case in cases if not case.reused])

    pipeline = Pipeline(
        job.settings,
        workers=job.threads,
        find=lambda name, digest: journal.find(name, digest, failed_too=failed_too),
        done=done,
    )
    start = time.perf_counter()
    try:
        for cases in pipeline.run(sources):
            for case in cases:
                summary.add_source(case.reused)
            yield cases
    finally:
        summary.seconds += time.perf_counter() - start
        summary.stages = stage_report(pipeline.busy, pipeline.threads, time.perf_counter() - start)


def run_record(job: InferJob, found: FoundSources) -> dict[str, Any]:
    """What made these results: the head of run.json."""
    engine = job.engine
    packages = ("numpy", "opencv-python-headless", "pillow", "pydicom", "highdicom", "openvino")
    return {
        "tool": "gms-rt infer",
        "notes": list(NOTES),
        "versions": {"gms-rt": __version__} | {name: package_version(name) for name in packages},
        "engine": {
            "name": engine.manifest.name,
            "folder": as_text(str(Path(os.path.abspath(engine.folder)))),  # noqa: PTH100 (links keep their names)
            "precision": engine.manifest.precision,
            "manifest_sha256": job.fingerprint,
            "classes": values_from_classes(engine.manifest.segment_classes),
        },
        "device": dataclasses.asdict(engine.runner.info),
        "options": dataclasses.asdict(job.options) | {"workers": job.threads},
        "confidence": DEFINITION,
        "inputs": [as_text(text) for text in found.inputs],
        "root": as_text(str(found.root)),
        "sources": len(found.sources),
        "series": sum(source.series is not None for source in found.sources),
        "other_files_skipped": found.skipped,
        "started": now(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
