"""Results of DICOM sources for tests: headers of any kind of image, masks, and what made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from gms_rt.classes import Code, SegmentClass
from gms_rt.infer.measure import measure_mask
from gms_rt.infer.result import Maker, SourceResult
from support.dicom_files import dataset

SHAPE = (30, 44)
MAKER = Maker("demo-fp16", "ab" * 32, "0.1.0", "cd" * 32, {"threshold": 0.5, "tta": False})
LESION = SegmentClass(
    "Lesion",
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("4147007", "SCT", "Mass"),
    Code("76752008", "SCT", "Breast"),
    (0, 200, 100),
)
CYST = SegmentClass("Cyst", LESION.category, Code("367643001", "SCT", "Cyst"), colour=(20, 20, 250))
PLACED = {
    "FrameOfReferenceUID": "1.2.3.4.5",
    "ImagePositionPatient": [-10, 20, 33.5],
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "PixelSpacing": [0.5, 0.7],
    "SliceThickness": 2,
}


def header(kind: str = "US", frames: int = 1, *, colour: bool = False, **tags: Any) -> Dataset:
    """The header of an image of this kind."""
    shape = ((frames,) if frames > 1 else ()) + SHAPE + ((3,) if colour else ())
    with disable_value_validation():  # devices write what the standard forbids
        made = dataset(np.zeros(shape, np.uint8), kind, frames=frames, **tags)
    del made.PixelData
    return made


def series(positions: list[float], kind: str = "CT", **tags: Any) -> list[Dataset]:
    """Axial slices of one series at these positions."""
    first = header(kind)
    shared = {"StudyInstanceUID": first.StudyInstanceUID, "SeriesInstanceUID": first.SeriesInstanceUID}
    axial = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    return [
        header(
            kind, **(PLACED | axial | shared | {"ImagePositionPatient": [-10, 20, z], "InstanceNumber": 9 - i} | tags)
        )
        for i, z in enumerate(positions)
    ]


def enhanced(positions: list[float], kind: str = "ECT") -> Dataset:
    """An enhanced image with a frame at each of these positions; equal ones are other times."""
    made = header(kind, len(positions), FrameOfReferenceUID="1.2.3.4.5")
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.7], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for z in positions:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10, 20, z]
        group.PlanePositionSequence = [position]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    return made


def labels_of(frames: int, classes: int = 1) -> Any:
    """Label maps that differ from frame to frame, the second one empty where there are more than two."""
    labels = np.zeros((frames, *SHAPE), np.uint8)
    for frame in range(frames):
        for number in range(1, classes + 1):
            labels[frame, 3 + frame % 7 : 20, 4 + 8 * number : 10 + 8 * number] = number
    if frames > 2:
        labels[1] = 0
    return labels


def result_of(headers: list[Any], labels: Any = None, **changes: Any) -> SourceResult:
    """The result of a file (one header) or series (several)."""
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    labels = labels_of(frames) if labels is None else labels
    rows = [
        {"case": f"scan.frame-{n:05d}", "frame": n, "confidence": 0.75}
        | measure_mask((map_ > 0).astype(np.uint8), (0.5, 0.7))
        for n, map_ in enumerate(labels, 1)
    ]
    values: dict[str, Any] = {
        "paths": [Path("scan.dcm")] * len(headers),
        "digest": "12" * 32,
        "labels": labels,
        "rows": rows,
        "maker": MAKER,
        "key": "0123456789abcdef",
        "headers": headers,
    }
    return SourceResult(**(values | changes))
