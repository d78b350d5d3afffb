"""A mask in numbers: one row of cases.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import IO, Any

import cv2
import numpy as np

from gms_rt.arrays import U8

COLUMNS = ("case", "source", "frame", "width", "height", "area_px", "area_mm2", "components", "centroid_x",
           "centroid_y", "bbox", "confidence", "refer", "window", "seconds", "status", "error",
           "modality", "series_uid", "sop_uid", "instance", "position", "spacing", "volume_mm3", "seg",
           "note")  # fmt: skip

CaseRow = dict[str, Any]


def measure_mask(mask: U8, spacing: tuple[float, float] | None) -> CaseRow:
    """Size, place and number of regions; `bbox` is x, y, width, height; centres of pixels are whole numbers."""
    x0, y0, wide, high = cv2.boundingRect(mask)
    inner = np.ascontiguousarray(mask[y0 : y0 + high, x0 : x0 + wide]) if wide else mask[:1, :1]
    count, _, stats, centres = cv2.connectedComponentsWithStats(inner, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    area = int(areas.sum())
    row: CaseRow = {"height": mask.shape[0], "width": mask.shape[1], "area_px": area, "components": count - 1}
    row["area_mm2"] = round(area * spacing[0] * spacing[1], 4) if spacing else None
    row["status"] = "ok" if area else "empty"
    if area:
        x, y = (centres[1:] * areas[:, None]).sum(axis=0) / area
        row["centroid_x"], row["centroid_y"] = round(float(x) + x0, 2), round(float(y) + y0, 2)
        row["bbox"] = f"{x0} {y0} {wide} {high}"
    return row


def as_text(name: str) -> str:
    """A file name as valid Unicode: bytes that are not are shown as \\xNN.

    >>> as_text("caf\\udce9")
    'caf\\\\xe9'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class CaseTable:
    """cases.csv, row by row. Text is quoted and numbers are not, so that every name survives."""

    def __init__(self, stream: IO[str]) -> None:
        self._writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row; absent values are empty."""
        self._writer.writerow([row.get(column) if row.get(column) is not None else "" for column in COLUMNS])
