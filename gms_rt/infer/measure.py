"""A mask in numbers: one row of cases.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import IO, Any

from gms_rt.arrays import U8
from gms_rt.runtime.masks import measures_of_mask
from gms_rt.spreadsheet import cell_from_text

COLUMNS = ("case", "source", "frame", "width", "height", "area_px", "area_mm2", "components", "centroid_x",
           "centroid_y", "bbox", "confidence", "refer", "window", "seconds", "status", "error",
           "modality", "series_uid", "sop_uid", "instance", "position_x", "position_y", "position_z", "spacing",
           "volume_mm3", "seg", "note", "class")  # fmt: skip

SERIES_COLUMNS = ("case", "slices", "failed", "width", "height", "area_px", "volume_mm3", "slice_spacing", "spacing",
                  "modality", "series_uid", "status", "seg", "note", "class")  # fmt: skip

CaseRow = dict[str, Any]


def measure_mask(mask: U8, spacing: tuple[float, float] | None) -> CaseRow:
    """Size, place and number of regions; `bbox` is x, y, width, height; centres of pixels are whole numbers."""
    found = measures_of_mask(mask)
    area = found.area
    row: CaseRow = {"height": mask.shape[0], "width": mask.shape[1], "area_px": area, "components": found.regions}
    row["area_mm2"] = round(area * spacing[0] * spacing[1], 4) if spacing else None
    row["spacing"] = f"{spacing[0]:.10g} {spacing[1]:.10g}" if spacing else None
    row["status"] = "ok" if area else "empty"
    if area:
        row["centroid_x"], row["centroid_y"] = (round(place, 2) for place in found.centre)
        row["bbox"] = " ".join(map(str, found.box))
    return row


def measure_series(case: str, rows: Sequence[CaseRow], spacing: float | None, notes: Sequence[str]) -> CaseRow:
    """A row of series.csv, from the rows of a stack's slices and the millimetres between them.

    The volume is the sum of the slices' areas times that distance; each slice gets its share as `volume_mm3`. It is
    left out where the distance or an area is not known, and the note says which.
    """
    for row in rows:
        row.pop("volume_mm3", None)
    made = [row for row in rows if row["status"] != "failed"]
    failed = len(rows) - len(made)
    areas = [row.get("area_mm2") for row in made]
    reasons = list(notes)
    volume = None
    if failed:
        reasons.append(f"no volume: {failed} of {len(rows)} slices failed")
    elif spacing is None:
        reasons.append("no volume: there is no one distance between slices")
    elif None in areas:
        reasons.append("no volume: the spacing of pixels is not known")
    else:
        for row in made:
            row["volume_mm3"] = round(row["area_mm2"] * spacing, 4)
        volume = round(sum(area for area in areas if area is not None) * spacing, 4)
    first = made[0] if made else rows[0]
    reasons += [first["note"]] if first.get("note") else []
    area = sum(row["area_px"] for row in made)
    shared = {key: first.get(key) for key in ("width", "height", "spacing", "modality", "series_uid", "seg", "class")}
    return shared | {
        "case": case,
        "slices": len(rows),
        "failed": failed,
        "area_px": area if made else None,
        "volume_mm3": volume,
        "slice_spacing": spacing,
        "status": "failed" if failed else "ok" if area else "empty",
        "note": "; ".join(reasons) or None,
    }


def as_text(name: str) -> str:
    """A file name as valid Unicode: bytes that are not are shown as \\xNN.

    >>> as_text("caf\\udce9")
    'caf\\\\xe9'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class CaseTable:
    """cases.csv or series.csv, row by row. Text is quoted and numbers are not, so that every name survives;
    `gms_rt.spreadsheet` says what becomes of text that a spreadsheet would compute.
    """

    def __init__(self, stream: IO[str], columns: Sequence[str] = COLUMNS, *, head: bool = True) -> None:
        self._columns = columns
        self._writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        if head:
            self._writer.writerow(columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row; absent values are empty."""
        self._writer.writerow([_cell(row.get(column)) for column in self._columns])


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return cell_from_text(value) if isinstance(value, str) else value
