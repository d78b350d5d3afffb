"""A run over an archive: what is to do, who does it, what came of it.

The output folder is one that `gms-rt infer` writes: its files are the same bytes, but for the seconds in tables and the
times of creation in DICOM objects; and `gms-rt infer --continue` goes on with it.

Each source counts once, whatever dies meanwhile:

- the name of a result follows from its source, and a file takes its name in one step, when all of it is on the disk;
- a chunk is in the journal when all its files are in place, and the one who gives out chunks alone writes the journal;
- what is not in the journal is done again, and writes the same bytes to the same names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gms_rt.artifacts import read_json, write_json
from gms_rt.errors import ArtifactError, GmsError, UsageError
from gms_rt.infer import OutFolder
from gms_rt.infer.earlier import check_replaceable, is_same_root
from gms_rt.infer.journal import Journal, earlier_entries, entries_in_order
from gms_rt.infer.measure import as_text
from gms_rt.infer.run import forget_regrouped, now
from gms_rt.infer.sources import Source
from gms_rt.infer.summary import Summary, stage_report, with_referral
from gms_rt.infer.tables import RunTables
from gms_rt.scale.attempts import Attempts
from gms_rt.scale.chunk import Chunk, ChunkResult, chunks_from_sources
from gms_rt.scale.places import Archive
from gms_rt.scale.stamps import Stamps
from gms_rt.scale.table import TABLE, ParquetTable, parquet_available


class Backend(Protocol):
    """Who does the work. `facts` is called once, before `results`."""

    name: str
    workers: int
    cores_per_worker: int
    lost: int | None  # workers that died; None where nobody tells

    def facts(self) -> dict[str, Any]:
        """What a worker is: `key` of its results, `record` for run.json, `notice`."""

    def results(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """What comes of the chunks, in any order."""


@dataclass(frozen=True)
class ScaleJob:
    """What a run is about, besides its sources and workers."""

    out: OutFolder  # locked by the caller
    refer_below: float | None = None
    resume: bool = False  # skip what an earlier run finished
    replace: bool = False  # delete results of other scans
    retries: int = 3  # times that a chunk is given out again after an error of an engine or a disk
    on_start: Callable[[int, int, dict[str, Any]], None] | None = None  # sources, those done before, a worker's facts
    on_chunk: Callable[[ChunkResult, int, int], None] | None = None  # a result, sources done, sources in all


@dataclass
class Tally:
    """What the workers took."""

    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)  # memory by worker
    worked: float = 0.0  # seconds of all workers
    errors: int = 0  # chunks that were given out again after an error

    def add(self, result: ChunkResult) -> None:
        """Count a result."""
        for stage, spent in result.busy.items():
            self.busy[stage] = self.busy.get(stage, 0.0) + spent
        self.threads = self.threads or result.threads
        self.peaks[result.worker] = max(result.peak_bytes, self.peaks.get(result.worker, 0))
        self.worked += result.seconds


def scale_cases(archive: Archive, job: ScaleJob, backend: Backend) -> dict[str, Any]:
    """Segment an archive; returns the content of summary.json and, as `screen`, the same for people."""
    found, root = archive.found, job.out.root
    facts = backend.facts()
    key: str = facts["key"]
    if not job.replace:
        check_replaceable(root, found, keep=key if job.resume else None)
        if job.resume:
            _check_same_engine(root, facts["record"])
    resume = job.resume and is_same_root(root, found)
    record = facts["record"] | {
        "tool": "gms-rt scale infer",
        "inputs": [as_text(text) for text in found.inputs],
        "root": as_text(str(found.root)),
        "sources": len(found.sources),
        "series": sum(source.series is not None for source in found.sources),
        "other_files_skipped": found.skipped,
        "backend": {"name": backend.name, "workers": backend.workers, "cores_per_worker": backend.cores_per_worker},
    }
    attempts = Attempts(root)
    attempts.clear()
    tally = Tally()
    status = "failed"
    with Journal(root, key, resume=resume) as journal, Stamps(root, resume=resume) as stamps:
        write_json(root / "run.json", record | {"status": "running"})
        forget_regrouped(journal, found.sources)
        seen = {source.name: archive.stamp(source) for source in found.sources}
        todo = [source for source in found.sources if not _is_finished(source, seen, journal, stamps)]
        reused = len(found.sources) - len(todo)
        journal.entries.clear()
        if job.on_start is not None:
            job.on_start(len(found.sources), reused, facts)
        start = time.perf_counter()
        done = reused
        try:
            for result in _results(backend, todo, job.retries, tally):
                journal.add((e.source, e.digest, e.rows, e.files) for e in result.entries)
                stamps.add((e.source, seen[e.source]) for e in result.entries)
                done += len(result.entries)
                if job.on_chunk is not None:
                    job.on_chunk(result, done, len(found.sources))
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            tally.seconds = time.perf_counter() - start
            with contextlib.suppress(GmsError, OSError):  # the error that counts is the first
                summary = _tables(archive, job, key, reused, tally)
                value = summary.value() | {"scale": _workers(backend, tally)}
                write_json(root / "summary.json", value)
                write_json(root / "run.json", record | {"status": status, "ended": now()})
                attempts.clear()
    job.out.sweep()
    return value | {"screen": f"{_workers_line(value['scale'])}\n{summary.screen(str(root))}"}


def _check_same_engine(root: Path, record: dict[str, Any]) -> None:
    """Refuse to go on where another engine began: all that it did would be done again, which nobody asked for."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = record.get("engine", {})
    with contextlib.suppress(ArtifactError):
        before = read_json(root / "run.json").get("engine", {})
    if before and before.get("manifest_sha256") != after.get("manifest_sha256") and earlier_entries(root):
        raise UsageError(
            f"holds the results of another engine ({as_text(str(before.get('folder')))}) than --continue has now",
            where=root,
            fix="name that engine or another --out, or add --replace to segment everything again",
        )


def _is_finished(source: Source, seen: dict[str, str], journal: Journal, stamps: Stamps) -> bool:
    """Whether an earlier run made all of a source's results, which are still there, and it has not changed since."""
    entry = journal.entries.get(source.name)
    if entry is None or not stamps.is_same(source.name, seen[source.name]):
        return False
    return journal.find(source.name, entry.digest) is not None


def _results(backend: Backend, todo: list[Source], retries: int, tally: Tally) -> Iterator[ChunkResult]:
    """The results of all chunks, each once; a chunk that ends with an error is given out again after the others."""
    pending = list(chunks_from_sources(todo, backend.workers))
    patience = backend.workers + 2  # errors in a row after which it is not one worker that is broken
    for left in reversed(range(retries + 1)):
        failed: list[Chunk] = []
        chunks = {chunk.id: chunk for chunk in pending}
        row = 0
        for result in backend.results(pending):
            tally.add(result)
            chunk = chunks.pop(result.chunk, None)
            if chunk is None:
                continue  # a node that was thought dead
            if result.error is None:
                row = 0
                yield result
                continue
            row += 1
            tally.errors += 1
            failed.append(chunk)
            if not left or row >= patience:
                raise result.error
        if chunks:
            raise GmsError(f"{len(chunks)} chunks have no result", fix="run it again with --continue")
        if not failed:
            return
        pending = failed


def _tables(archive: Archive, job: ScaleJob, key: str, reused: int, tally: Tally) -> Summary:
    """Write the tables in the order of the sources, as one machine would, and return the summary of them."""
    found, root = archive.found, job.out.root
    summary = Summary(job.refer_below)
    with contextlib.ExitStack() as stack:
        tables = stack.enter_context(RunTables(root, series=any(source.series for source in found.sources)))
        parquet = stack.enter_context(ParquetTable(root)) if parquet_available() else None
        if parquet is None:
            (root / TABLE).unlink(missing_ok=True)  # of an earlier run
        for entry in entries_in_order(root, key, (source.name for source in found.sources)):
            rows = [with_referral(row, job.refer_below) for row in entry.rows]
            tables.add(rows)
            if parquet is not None:
                parquet.add(rows)
            for row in rows:
                summary.add(row)
            summary.add_source(False)
    summary.reused = reused
    summary.seconds = tally.seconds
    if tally.busy:
        workers = max(1, len(tally.peaks))
        threads = {stage: count * workers for stage, count in tally.threads.items()}
        summary.stages = stage_report(tally.busy, threads, tally.seconds)
    return summary


def _workers(backend: Backend, tally: Tally) -> dict[str, Any]:
    share = tally.worked / (tally.seconds * backend.workers) if tally.seconds else 0.0
    return {
        "backend": backend.name,
        "workers": backend.workers,
        "cores_per_worker": backend.cores_per_worker,
        "workers_lost": backend.lost,
        "chunks_given_out_again": tally.errors,
        "busy": round(share, 3),
        "peak_mib_per_worker": round(max(tally.peaks.values(), default=0) / 2**20),
    }


def _workers_line(value: dict[str, Any]) -> str:
    cores, lost = value["cores_per_worker"], value["workers_lost"]
    each = f"{cores} {'core' if cores == 1 else 'cores'} and at most {value['peak_mib_per_worker']} MiB each"
    died = f", {lost} died and replaced" if lost else ""
    count = f"{value['workers']} {'worker' if value['workers'] == 1 else 'workers'}"
    return f"{count} ({value['backend']}), {each}, {value['busy'] * 100:.0f} % busy{died}"
