"""What a DICOM header says of a frame's identity and place, as columns of a table."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from gms_rt.scan.dicom_spacing import functional_group


def frame_origin(header: Any, number: int) -> dict[str, Any]:
    """Modality, UIDs, instance number and position (in millimetres) of frame `number`; absent ones are left out.

    The header is anyone's: what is damaged is left out, too.
    """
    origin: dict[str, Any] = {}
    for column, keyword in (("modality", "Modality"), ("series_uid", "SeriesInstanceUID"),
                            ("sop_uid", "SOPInstanceUID")):  # fmt: skip
        if text := _text(header, keyword):
            origin[column] = text
    with contextlib.suppress(Exception):  # pydicom reads values late, and hostile ones fail in many ways
        origin["instance"] = int(header.get("InstanceNumber"))
    return origin | dict(zip(("position_x", "position_y", "position_z"), _position(header, number), strict=False))


def _text(header: Any, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "")
    except Exception:  # as above
        return ""


def _position(header: Any, number: int) -> list[float]:
    try:
        group = functional_group(header, number, "PlanePositionSequence")
        values = (group or header).get("ImagePositionPatient")
        place = [float(value) for value in values]
    except Exception:  # as above
        return []
    return place if len(place) == 3 and all(map(math.isfinite, place)) else []
