"""cases.parquet: the rows of cases.csv with types, for programs that read tables of millions of rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from gms_rt.artifacts import atomic_path
from gms_rt.infer.measure import COLUMNS, CaseRow

TABLE = "cases.parquet"
_WHOLE = {"frame", "width", "height", "area_px", "components", "instance"}
_REAL = {"area_mm2", "centroid_x", "centroid_y", "confidence", "seconds", "position_x", "position_y", "position_z",
         "volume_mm3"}  # fmt: skip
_ROWS = 4096  # written at a time


def parquet_available() -> bool:
    """Whether pyarrow is installed; the ray extra brings it."""
    return importlib.util.find_spec("pyarrow") is not None


class ParquetTable:
    """A table that takes its place when it is complete. Use it as a context manager."""

    def __init__(self, root: Path) -> None:
        import pyarrow

        kinds = {True: pyarrow.int64(), False: pyarrow.float64()}
        self._schema = pyarrow.schema(
            [(c, kinds[c in _WHOLE] if c in _WHOLE | _REAL else pyarrow.string()) for c in COLUMNS]
        )
        self._place = atomic_path(root / TABLE)
        self._rows: list[CaseRow] = []
        self._writer: Any = None

    def __enter__(self) -> ParquetTable:
        from pyarrow.parquet import ParquetWriter

        self._writer = ParquetWriter(self._place.__enter__(), self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()
        self._place.__exit__(kind, error, trace)

    def add(self, rows: Iterable[CaseRow]) -> None:
        """Append rows."""
        self._rows += [{column: _cell(column, row.get(column)) for column in COLUMNS} for row in rows]
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _cell(column: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if column in _WHOLE:
        return int(value)
    return float(value) if column in _REAL else str(value)
