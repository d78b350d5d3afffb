"""cases.csv and series.csv while a run goes on: whole lines, one source after the other."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from gms_rt.artifacts import write_bytes
from gms_rt.errors import GmsError
from gms_rt.infer.measure import COLUMNS, SERIES_COLUMNS, CaseRow, CaseTable

_GrowingTable = TypeVar("_GrowingTable", bound="GrowingTable")


class GrowingTable:
    """A table that takes the place of an older one with its head, and grows by the lines of some sources at a time.

    Their lines are written in one step, so that readers see whole lines; after an error what was written of them is
    taken back.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns
        self._file: int | None = None
        self._length = 0

    def __enter__(self: _GrowingTable) -> _GrowingTable:
        head = _lines([], self._columns, head=True)
        write_bytes(self._path, head)
        self._length = len(head)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows, of whole sources."""
        assert self._file is not None, "the table is open while a run lasts"
        data = _lines(rows, self._columns)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise GmsError(f"cannot be written ({error.strerror})", where=self._path) from error
        self._length += len(data)


class RunTables:
    """The tables of a run; without a series among the sources there is no series.csv. A context manager."""

    def __init__(self, root: Path, *, series: bool) -> None:
        self._stack = contextlib.ExitStack()
        self._cases = GrowingTable(root / "cases.csv", COLUMNS)
        self._series = GrowingTable(root / "series.csv", SERIES_COLUMNS) if series else None
        self._root = root

    def __enter__(self) -> RunTables:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._cases)
            if self._series is not None:
                stack.enter_context(self._series)
            else:
                (self._root / "series.csv").unlink(missing_ok=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, rows: Sequence[CaseRow]) -> None:
        """Append rows, of whole sources."""
        self._cases.add(rows)
        if self._series is not None and (stacks := series_rows(rows)):
            self._series.add(stacks)


def write_tables(root: Path, rows: Iterable[CaseRow]) -> None:
    """Both tables at once, each in one step."""
    kept = list(rows)
    write_bytes(root / "cases.csv", _lines(kept, COLUMNS, head=True))
    if stacks := series_rows(kept):
        write_bytes(root / "series.csv", _lines(stacks, SERIES_COLUMNS, head=True))
    else:
        (root / "series.csv").unlink(missing_ok=True)


def series_rows(rows: Iterable[CaseRow]) -> list[CaseRow]:
    """The rows of series.csv: each travels with the first row of its slices."""
    return [row["series"] for row in rows if row.get("series")]


def _lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, head: bool = False) -> bytes:
    stream = io.StringIO(newline="")
    table = CaseTable(stream, columns, head=head)
    for row in rows:
        table.add(row)
    return stream.getvalue().encode()
