"""The sources that are finished: one line of JSON each, appended when all results are in place.

A kill can tear the last line only, and a torn line is ignored. An entry counts for a later run when the source's
content, the engine and the options are the same and every result is still there at its size.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from gms_rt.errors import GmsError
from gms_rt.infer.measure import CaseRow

_TEXT = json.JSONEncoder(separators=(",", ":")).encode
JOURNAL = ".gms-rt-journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """A finished source: its content's hash, its rows, and its files (relative to the output folder) with sizes."""

    key: str
    source: str
    digest: str
    rows: list[CaseRow]
    files: dict[str, int]

    @property
    def clean(self) -> bool:
        """Whether no row failed."""
        return all(row["status"] != "failed" for row in self.rows)


_Journal = TypeVar("_Journal", bound="Journal")


class Journal:
    """The journal of an output folder. Use it as a context manager; `add` may be called from many threads.

    `entries` are those of earlier runs with the same key; with `remember` this run's are added to them.
    """

    def __init__(self, root: Path, key: str, *, resume: bool, remember: bool = False) -> None:
        self.root = root
        self.key = key
        self._lock = threading.Lock()
        self._stream: IO[str] | None = None
        self._resume = resume
        self._remember = remember
        self.entries: dict[str, Entry] = {}

    def __enter__(self: _Journal) -> _Journal:
        path = self.root / JOURNAL
        earlier, whole = _read(path)
        if self._resume:
            self.entries = {entry.source: entry for entry in earlier if entry.key == self.key}
        stale = [entry for entry in earlier if entry.source not in self.entries]
        _remove(self.root, stale, kept={name for entry in self.entries.values() for name in entry.files})
        try:
            if self._resume and path.exists():
                os.truncate(path, whole)
            else:
                path.unlink(missing_ok=True)
            self._stream = path.open("a", encoding="ascii")
        except OSError as error:
            raise GmsError(f"cannot be written ({error.strerror})", where=path) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def find(self, source: str, digest: str, *, failed_too: bool = False) -> Entry | None:
        """The finished entry of a source whose content has this hash, with all its files in place."""
        entry = self.entries.get(source)
        if entry is None or entry.digest != digest or not (entry.clean or failed_too):
            return None
        for name, size in entry.files.items():
            try:
                if (self.root / name).stat().st_size != size:
                    return None
            except OSError:
                return None
        return entry

    def forget(self, source: str) -> None:
        """Remove the results of a source that is now part of another."""
        entry = self.entries.pop(source)
        # A line without rows and files takes the place of the earlier one when the journal is read again.
        self.add([(source, "", [], {})])
        self.entries.pop(source, None)
        _remove(self.root, [entry], kept={name for other in self.entries.values() for name in other.files})

    def add(self, sources: Iterable[tuple[str, str, list[CaseRow], dict[str, int]]]) -> None:
        """Record finished sources, in one step: name, content's hash, rows and files of each."""
        entries = [Entry(self.key, *source) for source in sources]
        lines = [_TEXT([each.key, each.source, each.digest, each.rows, each.files]) + "\n" for each in entries]
        with self._lock:
            assert self._stream is not None, "the journal is open while a run lasts"
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except OSError as error:
                raise GmsError(f"cannot be written ({error.strerror})", where=self.root / JOURNAL) from error
            if self._remember:
                for entry in entries:
                    earlier = self.entries.get(entry.source)
                    self.entries[entry.source] = entry
                    if earlier is not None:  # a series that has other slices now
                        _remove(self.root, [earlier], kept=set(entry.files))


def earlier_entries(root: Path) -> list[Entry]:
    """What earlier runs finished in an output folder."""
    return _read(root / JOURNAL)[0]


def entries_in_order(root: Path, key: str, names: Iterable[str]) -> Iterator[Entry]:
    """The last entry of each of these sources with this key, in this order; those without one are left out.

    Only places in the file are held in memory.
    """
    places: dict[str, int] = {}
    try:
        stream = (root / JOURNAL).open("rb")
    except FileNotFoundError:
        return
    with stream:
        place = 0
        for line in stream:
            try:
                values: list[Any] = json.loads(line)
            except ValueError:
                break
            if values[0] == key:
                places[values[1]] = place
            place += len(line)
        for name in names:
            if name in places:
                stream.seek(places[name])
                yield Entry(*json.loads(stream.readline()))


def _read(path: Path) -> tuple[list[Entry], int]:
    """All whole entries, and the length of the part of the file that holds them."""
    entries: list[Entry] = []
    whole = 0
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return [], 0
    with stream:
        for line in stream:
            try:
                values: list[Any] = json.loads(line)
                entry = Entry(*values)
            except (ValueError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            entries.append(entry)
            whole += len(line)
    return entries, whole


def _remove(root: Path, entries: list[Entry], kept: set[str]) -> None:
    """Remove results of an earlier run, so that none of them is taken for one of this run."""
    for entry in entries:
        for name in entry.files:
            # The journal is a file that anyone can edit: nothing outside the output folder is ever removed.
            if name not in kept and not name.startswith("/") and ".." not in name.split("/"):
                (root / name).unlink(missing_ok=True)
