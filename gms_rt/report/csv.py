"""A report as CSV: one line per engine or peer, every figure, the parity verdict in the line of each latency.

After them come the points of the throughput-latency curve, a line each, of kind "sweep"; what a point does not have is
empty.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from gms_rt.report.columns import SWEPT, TIMED, timed_rows
from gms_rt.report.model import Report
from gms_rt.spreadsheet import cell_from_text


def csv_from_report(report: Report) -> str:
    """The engines table as CSV text."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [column.key for column in TIMED], restval="", lineterminator="\n")
    writer.writeheader()
    for row in timed_rows(report):
        writer.writerow({column.key: _cell(column.value(row)) for column in TIMED})
    for point in report.bench.sweep if report.bench else ():
        cells = {column.key: _cell(column.value(point)) for column in SWEPT}
        writer.writerow({**cells, "kind": "sweep", "parity": report.parity_of(point.engine).verdict})
    return stream.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return cell_from_text(value) if isinstance(value, str) else "" if value is None else str(value)
