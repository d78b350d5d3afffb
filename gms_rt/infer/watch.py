"""A folder in which scans keep arriving: each is segmented once it is complete, also across restarts.

A file is complete when its size and time have not changed for `settle` seconds. Writers that rename a finished file
into place, or use a hidden name until then, are never caught halfway. Results keep the source's ending in their names,
because a later file could claim any shorter name.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

from gms_rt.artifacts import atomic_path, write_json
from gms_rt.errors import UsageError
from gms_rt.infer.journal import Journal
from gms_rt.infer.measure import CaseTable
from gms_rt.infer.run import InferJob, now, run_record, segment_sources
from gms_rt.infer.sources import FoundSources, Source, find_sources
from gms_rt.infer.summary import Summary

_Seen = tuple[int, int]  # size, time of change


def watch(folder: Path, job: InferJob, *, stop: threading.Event, poll: float = 1.0, settle: float = 2.0) -> Summary:
    """Segment what is in `folder` and what arrives there until `stop` is set; what was begun is finished first."""
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, keep_suffix=True))
    out = job.out
    record = run_record(job, FoundSources([], folder, 0, [str(folder)])) | {"watch": True}
    arrivals = _Arrivals(folder, settle)
    summary = Summary(job.options.refer_below)
    with Journal(out.root, job.key, resume=True, remember=True) as journal:
        write_json(out.root / "run.json", record | {"status": "watching"})
        changed = True
        while True:
            whole = arrivals.whole()
            for case in segment_sources(whole, job, journal, summary, failed_too=True):
                if job.on_case is not None and not case.reused:
                    job.on_case(case, job.refer(case.rows))
                changed = True
            if changed:
                summary = _write_tables(job, journal, summary)
                changed = False
            if stop.wait(poll):
                break
        write_json(out.root / "run.json", record | {"status": "done", "ended": now()})
    return summary


def _write_tables(job: InferJob, journal: Journal, before: Summary) -> Summary:
    """Write the tables and return the summary of them: a file that came back whole counts as it is now, not twice."""
    root = job.out.root
    summary = before.without_rows(len(journal.entries))
    with atomic_path(root / "cases.csv") as part, part.open("w", encoding="utf-8", newline="") as stream:
        table = CaseTable(stream)
        for name in sorted(journal.entries):
            for row in job.refer(journal.entries[name].rows):
                table.add(row)
                summary.add(row)
    write_json(root / "summary.json", summary.value())
    return summary


class _Arrivals:
    """Which files of a folder are complete and new since the last look."""

    def __init__(self, folder: Path, settle: float) -> None:
        self._folder = folder
        self._settle = settle
        self._since: dict[Path, tuple[_Seen, float]] = {}
        self._taken: dict[Path, _Seen] = {}

    def whole(self) -> list[Source]:
        """Sources to segment now, in the order of their names."""
        try:
            found = find_sources([str(self._folder)], keep_suffix=True)
        except UsageError:
            if self._folder.is_dir():
                raise
            return []  # a network share that is gone for a while
        present = {source.path for source in found.sources}
        for gone in [path for path in self._since if path not in present]:
            del self._since[gone]
            self._taken.pop(gone, None)
        return [source for source in found.sources if self._is_whole(source.path)]

    def _is_whole(self, path: Path) -> bool:
        try:
            about = path.stat()
        except OSError:
            return False
        seen = (about.st_size, about.st_mtime_ns)
        if self._taken.get(path) == seen:
            return False
        clock = time.monotonic()
        before = self._since.get(path)
        if before is None or before[0] != seen:
            self._since[path] = (seen, clock)
            # A file that has not changed for long before the first look does not have to wait.
            settled = time.time() - about.st_mtime >= max(self._settle, 0.0) + 1.0 and before is None
        else:
            settled = clock - before[1] >= self._settle
        if settled:
            self._taken[path] = seen
        return settled
