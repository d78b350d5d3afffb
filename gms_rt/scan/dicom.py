"""Frames of a DICOM file, one at a time, as 8-bit images in the stored orientation.

Pixels are decoded by pydicom's plugins; which transfer syntaxes work is what is installed, and a missing decoder is
named in the error. The header's dimensions are checked before pixels are touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gms_rt.errors import InputError, line_from_error
from gms_rt.scan import dicom_values as values
from gms_rt.scan.dicom_origin import frame_origin
from gms_rt.scan.dicom_spacing import pixel_spacing
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAX_FRAMES = 1_000_000


def is_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM's preamble and prefix."""
    return start[128:132] == b"DICM"


def read_header(path: Path) -> Dataset:
    """All of a DICOM file except its pixels."""
    import pydicom

    try:
        with path.open("rb") as stream:
            bare = not is_dicom(stream.read(132))
        header = pydicom.dcmread(path, stop_before_pixels=True, force=bare)
    except OSError:
        raise
    except Exception as error:  # hostile bytes fail in many ways
        raise InputError(f"is a damaged DICOM file ({line_from_error(error)[:300]})") from error
    if "SOPClassUID" not in header:
        raise InputError("is not a DICOM file (no SOP class)")
    return header


def read_dicom(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a DICOM image of one or many frames."""
    header = read_header(path)
    name = getattr(header.SOPClassUID, "name", "unknown SOP class")
    if header.get("Modality") == "SEG":
        raise InputError("is a DICOM Segmentation, not a scan")
    try:
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        count = int(header.get("NumberOfFrames") or 1)
        photometric = str(header.get("PhotometricInterpretation", ""))
    except Exception as error:
        raise InputError(f"is a damaged DICOM file ({line_from_error(error)[:300]})") from error
    if not rows or not photometric:
        raise InputError(f"has no image ({name})")
    check_size(columns, rows, max_pixels)
    if not 1 <= count <= _MAX_FRAMES:
        raise InputError(f"says it has {count} frames, the limit is {_MAX_FRAMES}")
    return ScanFrames("NumberOfFrames" in header and count > 1, _frames(path, header, count))


def _frames(path: Path, header: Any, count: int) -> Iterator[Frame]:
    number = 0
    try:
        for stored in _stored_frames(path):
            number += 1
            image, choice = values.image_from_stored(np.asarray(stored), header, number)
            spacing, origin = pixel_spacing(header, number), frame_origin(header, number)
            yield Frame(np.ascontiguousarray(image), number, choice, spacing, origin)
            if number == count:
                break
    except (InputError, OSError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # decoders fail on hostile bytes in many ways
        raise InputError(_reason(error, header, number)) from error
    if number < count:
        raise InputError(f"ends after {number} of {count} frames")


def _stored_frames(path: Path) -> Iterator[Any]:
    import pydicom
    from pydicom.pixels import iter_pixels

    with path.open("rb") as stream:
        if is_dicom(stream.read(132)):
            stream.seek(0)
            yield from iter_pixels(stream)
            return
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    yield from iter_pixels(dataset)


def _reason(error: Exception, header: Any, number: int) -> str:
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    name = getattr(syntax, "name", "no transfer syntax")
    text = line_from_error(error)[:300]
    if (
        "missing dependencies" in text
        or "no available decoder" in text.lower()
        or isinstance(error, NotImplementedError)
    ):
        return f"is compressed as {name}, for which no decoder is installed"
    return f"has damaged pixel data in frame {number + 1} ({name}: {text})"
