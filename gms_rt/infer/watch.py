"""A folder in which scans keep arriving: each is segmented once it is complete, also across restarts.

A file is complete when its size and time have not changed for `settle` seconds, a series when all its files are; a
slice that comes later makes the series anew. Writers that rename a finished file
into place, or use a hidden name until then, are never caught halfway. Results keep the source's ending in their names,
because a later file could claim any shorter name.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.errors import GmsError, UsageError
from gms_rt.infer.earlier import check_replaceable, is_same_root
from gms_rt.infer.journal import Journal
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.run import InferJob, forget_regrouped, now, run_record, segment_sources
from gms_rt.infer.sources import FoundSources, Source, find_sources, with_series
from gms_rt.infer.summary import Summary
from gms_rt.infer.tables import write_tables
from gms_rt.scan.slices import Slice, slice_from_file

_Seen = tuple[int, int]  # size, time of change


def watch(
    folder: Path,
    job: InferJob,
    *,
    stop: threading.Event,
    poll: float = 1.0,
    settle: float = 2.0,
    series: bool = True,
    replace: bool = False,
) -> Summary:
    """Segment what is in `folder` and what arrives there until `stop` is set; what was begun is finished first."""
    if job.options.deidentify:
        raise UsageError("cannot be used with --watch", where="--deidentify", fix="run infer on the folder")
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, keep_suffix=True))
    out = job.out
    found = FoundSources([], folder, 0, [str(folder)])
    if not replace:
        check_replaceable(out.root, found, keep=job.key)
    record = run_record(job, found) | {"watch": True}
    arrivals = _Arrivals(folder, settle, series=series)
    summary = Summary(job.options.refer_below)
    resume = is_same_root(out.root, found)
    with Journal(out.root, job.key, resume=resume, remember=True) as journal, _recorded(out, record):
        job.describe(folder.resolve())
        changed = True
        while True:
            whole = arrivals.whole()
            for cases in segment_sources(whole, job, journal, summary, failed_too=True):
                for case in cases:
                    if job.on_case is not None and not case.reused:
                        job.on_case(case, job.refer(case.rows))
                changed = True
            if changed:
                forget_regrouped(journal, whole)
                summary = _write_tables(job, journal, summary)
                changed = False
            if stop.wait(poll):
                break
    return summary


@contextmanager
def _recorded(out: OutFolder, record: dict[str, Any]) -> Iterator[None]:
    """`run.json` says that the folder is being watched, and in the end how that ended."""
    write_json(out.root / "run.json", record | {"status": "watching"})
    status = "failed"
    try:
        yield
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        # After a full disk this fails too; the error that counts is the first.
        with suppress(GmsError, OSError):
            write_json(out.root / "run.json", record | {"status": status, "ended": now()})


def _write_tables(job: InferJob, journal: Journal, before: Summary) -> Summary:
    """Write the tables and return the summary of them: a file that came back whole counts as it is now, not twice."""
    summary = before.without_rows(len(journal.entries))
    rows = [row for name in sorted(journal.entries) for row in job.refer(journal.entries[name].rows)]
    for row in rows:
        summary.add(row)
    write_tables(job.out.root, rows)
    write_json(job.out.root / "summary.json", summary.value())
    return summary


@dataclass(frozen=True)
class _Rest:
    """Since when a file has been as it is."""

    seen: _Seen
    since: float
    enough: bool = False  # it has been so for long enough


class _Arrivals:
    """Which sources of a folder are complete and new since the last look."""

    def __init__(self, folder: Path, settle: float, *, series: bool) -> None:
        self._folder = folder
        self._settle = settle
        self._series = series
        self._rests: dict[Path, _Rest] = {}
        self._taken: dict[str, list[tuple[Path, _Seen | None]]] = {}
        self._slices: dict[Path, tuple[_Seen, Slice | None]] = {}

    def whole(self) -> list[Source]:
        """Sources to segment now, in the order of their names: those whose files all rest."""
        try:
            found = find_sources([str(self._folder)], keep_suffix=True)
        except UsageError:
            if self._folder.is_dir():
                raise
            return []  # a network share that is gone for a while
        present = {source.path for source in found.sources}
        for gone in self._rests.keys() - present:
            del self._rests[gone]
        for gone in self._slices.keys() - present:
            del self._slices[gone]
        if self._series:
            found = with_series(found, look=self._look)
        rested = {path: self._rested(path) for path in present}
        names = {source.name for source in found.sources}
        self._taken = {name: state for name, state in self._taken.items() if name in names}
        return [source for source in found.sources if self._is_new(source, rested)]

    def _is_new(self, source: Source, rested: dict[Path, _Seen | None]) -> bool:
        state = [(path, rested[path]) for path in source.paths]
        if any(seen is None for _, seen in state) or self._taken.get(source.name) == state:
            return False
        self._taken[source.name] = state
        return True

    def _look(self, path: Path) -> Slice | None:
        """A file's slice, read once for each state of the file."""
        seen = _seen(path)
        if seen is None:
            return None
        known = self._slices.get(path)
        if known is None or known[0] != seen:
            known = self._slices[path] = (seen, slice_from_file(path))
        return known[1]

    def _rested(self, path: Path) -> _Seen | None:
        """The state of a file that has not changed for long enough, else None."""
        seen = _seen(path)
        if seen is None:
            return None
        before = self._rests.get(path)
        if before is not None and before.seen == seen and before.enough:
            return seen
        clock = time.monotonic()
        if before is None or before.seen != seen:
            # A file that has not changed for long before the first look does not have to wait.
            age = time.time() - seen[1] / 1e9
            rest = _Rest(seen, clock, before is None and age >= max(self._settle, 0.0) + 1.0)
        else:
            rest = dataclasses.replace(before, enough=clock - before.since >= self._settle)
        self._rests[path] = rest
        return seen if rest.enough else None


def _seen(path: Path) -> _Seen | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns
