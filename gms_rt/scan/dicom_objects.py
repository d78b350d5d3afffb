"""Which DICOM objects are not images to segment: reports, plans, doses, waveforms, segmentations, directories."""

from __future__ import annotations

from typing import Any

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Values that are no picture of the patient, or a result rather than a scan, by SOP class; a last dot means all below.
_OTHERS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR (the index of a medium)",
    f"{_STORAGE}66.4": "a DICOM Segmentation",
    f"{_STORAGE}66.5": "a DICOM surface segmentation",
    f"{_STORAGE}66.7": "a DICOM label map segmentation",
    f"{_STORAGE}66.8": "a DICOM height map segmentation",
    f"{_STORAGE}481.2": "an RT Dose",
    f"{_STORAGE}11.": "a DICOM presentation state",
    f"{_STORAGE}39.": "a DICOM colour palette",
    f"{_STORAGE}104.": "an encapsulated document",
}
_OTHER_MODALITIES = {"SEG": f"{_STORAGE}66.4", "RTDOSE": f"{_STORAGE}481.2"}


def sop_class(header: Any) -> Any:
    """The object's class as pydicom's UID, from the dataset or else the file's own header; None where neither says."""
    return header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or None


def object_without_image(header: Any) -> str | None:
    """Why a valid DICOM object has nothing to segment, as the words after its name; None for an image.

    An object of a class that is an image's, but without one, is not meant: that one is damaged.
    """
    uid = sop_class(header)
    text = str(uid)
    found = next(
        (name for key, name in _OTHERS.items() if text == key or (key.endswith(".") and text.startswith(key))), None
    )
    found = found or _OTHERS.get(_OTHER_MODALITIES.get(str(header.get("Modality")), ""))
    if found:
        return f"is {found}, not a scan"
    name = str(uid.name)
    if header.get("Rows") or "Image" in name:
        return None
    return f"has no image ({name if name != text else f'SOP class {text}'})"
