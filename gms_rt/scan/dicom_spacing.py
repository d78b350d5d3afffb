"""Millimetres between the rows and columns of a DICOM frame, from wherever its modality keeps them."""

from __future__ import annotations

import math
from typing import Any

_CENTIMETRES = 3  # PhysicalUnitsXDirection of an ultrasound region


def pixel_spacing(header: Any, number: int) -> tuple[float, float] | None:
    """Spacing of frame `number` (from 1) as (between rows, between columns), None where it is not known.

    Where nothing better is there, an imager's own spacing at the detector is used: distances in a projection are not
    corrected for magnification.
    """
    try:
        measures = functional_group(header, number, "PixelMeasuresSequence")
        for holder, key in (
            (measures, "PixelSpacing"),
            (header, "PixelSpacing"),
            (header, "NominalScannedPixelSpacing"),
            (header, "ImagerPixelSpacing"),
        ):
            if holder is not None and holder.get(key) is not None and len(holder.get(key)) == 2:
                return _valid_spacing(*holder.get(key))
        return _ultrasound(header)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):
        return None  # a damaged tag gives no spacing


def functional_group(header: Any, number: int, name: str) -> Any:
    """The first item of a functional group of an enhanced object: the frame's own, else the shared one, else None."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = header.get("SharedFunctionalGroupsSequence")
    groups = [frames[number - 1]] if frames and number <= len(frames) else []
    for group in [*groups, *(shared or [])]:
        if group.get(name):
            return group.get(name)[0]
    return None


def _ultrasound(header: Any) -> tuple[float, float] | None:
    # A picture can hold regions of different scale, and traces: one scale for all of it exists only where they agree.
    found = set()
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        if region.get("PhysicalUnitsXDirection") == _CENTIMETRES == region.get("PhysicalUnitsYDirection"):
            found.add((abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10))
    return _valid_spacing(*found.pop()) if len(found) == 1 else None


def _valid_spacing(rows: Any, columns: Any) -> tuple[float, float] | None:
    pair = float(rows), float(columns)
    return pair if all(math.isfinite(value) and value > 0 for value in pair) else None
