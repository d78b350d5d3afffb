"""Small DICOM files for tests: any modality, frames, photometric interpretation, transfer syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {
    "CR": _STORAGE + "1",
    "CT": _STORAGE + "2",
    "DERM": _STORAGE + "77.1.4",  # VL Photographic
    "DX": _STORAGE + "1.1",
    "ENDO": _STORAGE + "77.1.1",
    "ECT": _STORAGE + "2.1",
    "EMR": _STORAGE + "4.1",
    "MG": _STORAGE + "1.2",
    "MR": _STORAGE + "4",
    "NM": _STORAGE + "20",
    "OPT": _STORAGE + "77.1.5.4",
    "SC": _STORAGE + "7",
    "SM": _STORAGE + "77.1.6",
    "US": _STORAGE + "6.1",
    "USMF": _STORAGE + "3.1",
    "XA": _STORAGE + "12.1",
}
MODALITIES = {"DERM": "XC", "ENDO": "ES", "ECT": "CT", "EMR": "MR", "SC": "OT", "USMF": "US"}


def dataset(pixels: np.ndarray[Any, Any], kind: str = "US", *, frames: int = 1, **tags: Any) -> Dataset:
    """A dataset of frames × rows × columns (× 3) values."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CLASSES[kind]
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality = MODALITIES.get(kind, kind)
    made.PatientName, made.PatientID = "Test^Person", "T1"
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    made.Rows, made.Columns = shape[:2]
    made.SamplesPerPixel = 3 if len(shape) == 3 else 1
    made.PhotometricInterpretation = "RGB" if made.SamplesPerPixel == 3 else "MONOCHROME2"
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames > 1:
        made.NumberOfFrames = frames
    for name, value in tags.items():
        setattr(made, name, value)
    data = pixels.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    return made


def save(made: Dataset, path: Path) -> Path:
    """Write it as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path,
    pixels: np.ndarray[Any, Any],
    *,
    first: float = 0.0,
    step: float = 2.5,
    turn: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    names: str = "IM{:04}.dcm",
    **tags: Any,
) -> list[Path]:
    """A CT series of slices × rows × columns, one file each, in the order of positions.

    Names and instance numbers run the other way, so that nothing but the position tells the order.
    """
    normal = np.cross(turn[:3], turn[3:])
    uids = {name: tags.pop(name, generate_uid()) for name in ("StudyInstanceUID", "SeriesInstanceUID",
                                                              "FrameOfReferenceUID")}  # fmt: skip
    paths = []
    for index, image in enumerate(pixels):
        place = [float(v) for v in normal * (first + step * index)]
        made = dataset(
            image,
            "CT",
            **({"SeriesNumber": 3, "PixelSpacing": [0.5, 0.8], "SliceThickness": 2.5} | uids | tags),
            ImagePositionPatient=place,
            ImageOrientationPatient=list(turn),
            InstanceNumber=len(pixels) - index,
        )
        paths.append(save(made, folder / names.format(len(pixels) - index)))
    return paths
