"""Frames of a DICOM file, one at a time, as 8-bit images in the stored orientation.

Pixels are decoded by pydicom's plugins; which transfer syntaxes work is what is installed, and a missing decoder is
named in the error. The header's dimensions are checked before pixels are touched, and a header that no one would write
is not read to its end. What DICOM stores besides images (reports, plans, waveforms, segmentations) is a NoImageError.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from gms_rt.errors import InputError, NoImageError, line_from_error
from gms_rt.scan import dicom_values as values
from gms_rt.scan.dicom_objects import object_without_image, sop_class
from gms_rt.scan.dicom_origin import frame_origin
from gms_rt.scan.dicom_spacing import pixel_spacing
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAX_FRAMES = 1_000_000
_MAX_ELEMENTS, _MAX_REPEATED = 20_000, 500  # outside sequences
_MAX_INFLATED = 1 << 30  # bytes of a file that is read whole
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_FIRST_GROUPS = tuple(bytes((group, 0)) for group in (0x02, 0x04, 0x08, 0x10, 0x18, 0x20, 0x28))


def is_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM's preamble and prefix."""
    return start[128:132] == b"DICM"


def read_header(path: Path) -> Dataset:
    """All of a DICOM file except its pixels."""
    from pydicom.filereader import read_partial

    try:
        with path.open("rb") as stream:
            start = stream.read(132)
            bare = not is_dicom(start)
            if bare and not _begins_dataset(start):
                raise InputError("is not a DICOM file")
            if not bare:
                check_beginning(path)
            stream.seek(0)
            header = read_partial(stream, _stop_reading(), force=bare)
        known = sop_class(header)  # pydicom decodes an element when it is first asked for
    except (OSError, InputError):
        raise
    except Exception as error:  # hostile bytes fail in many ways
        raise InputError(f"is a damaged DICOM file ({line_from_error(error)[:300]})") from error
    if not known:
        raise InputError("is not a DICOM file, or does not say of what (no SOP class)")
    return header


def _begins_dataset(start: bytes) -> bool:
    """Whether a file without preamble begins with an element of a group that a dataset can begin with."""
    group = start[:2]
    return len(start) >= 8 and (group in _FIRST_GROUPS or group[::-1] in _FIRST_GROUPS)


def _stop_reading() -> Callable[[int, str | None, int], bool]:
    """Stops before the pixels; elements repeated without end, which take pydicom very long, are refused."""
    seen = repeated = 0
    last = -1

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal seen, repeated, last
        seen += 1
        repeated += tag in (0, last)
        if seen > _MAX_ELEMENTS or repeated > _MAX_REPEATED:
            raise InputError("is not a DICOM file, or is damaged (it repeats elements without end)")
        last = tag
        return tag in _PIXELS

    return stop


def check_beginning(path: Path) -> int:
    """Refuse what pydicom would read for very long: a dataset of zeros, a deflated one that would fill the memory.

    The bytes that a deflated file becomes in memory; 0 of any other.
    """
    with path.open("rb") as stream:
        return check_stream(stream)


def check_stream(stream: IO[bytes]) -> int:
    """The same of a DICOM file that is open, wherever it is."""
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    stream.seek(132)  # a preamble and its prefix; then the group that says how the rest is written
    meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if stream.read(8) == bytes(8):
        raise InputError("is a damaged DICOM file (its dataset begins with zeros)")
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return 0
    stream.seek(-8, os.SEEK_CUR)
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(1 << 16)):
        size += len(inflater.decompress(chunk, 1 << 20))
        if size > _MAX_INFLATED:
            raise InputError(f"is deflated from more than {_MAX_INFLATED >> 20} MiB")
    return size


def read_dicom(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a DICOM image of one or many frames."""
    header = read_header(path)
    try:
        what = object_without_image(header)
        if what:
            raise NoImageError(what)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        count = int(header.get("NumberOfFrames") or 1)
        photometric = str(header.get("PhotometricInterpretation", ""))
    except NoImageError:
        raise
    except Exception as error:
        raise InputError(f"is a damaged DICOM file ({line_from_error(error)[:300]})") from error
    if not rows or not photometric:
        raise InputError(f"has no image ({sop_class(header).name})")
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
    """Frames as pydicom decodes them: one by one from the file, or from the whole dataset where it takes that."""
    import pydicom
    from pydicom.pixels import iter_pixels, pixel_array

    done, reason = 0, None
    with path.open("rb") as stream:
        if is_dicom(stream.read(132)):
            stream.seek(0)
            try:
                for frame in iter_pixels(stream):
                    yield frame
                    done += 1
                return
            except Exception as error:
                # Deflated files, and some whose syntax is not the one they state, can only be read whole.
                if isinstance(error, MemoryError) or path.stat().st_size > _MAX_INFLATED:
                    raise
                reason = error
    try:
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        for index in range(done, int(dataset.get("NumberOfFrames") or 1)):
            # One frame alone is also decoded where JPEG 2000 and the dataset differ in the sign of values.
            yield pixel_array(dataset, index=index)
    except Exception as error:
        raise (reason or error) from error


def _reason(error: Exception, header: Any, number: int) -> str:
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    name = getattr(syntax, "name", "no transfer syntax")
    text = line_from_error(error)[:300]
    if "no pixel data to decode" in text:
        return "has no pixel data"
    if (
        "missing dependencies" in text
        or "no available decoder" in text.lower()
        or isinstance(error, NotImplementedError)
    ):
        return f"is compressed as {name}, for which no decoder is installed"
    # A decoder that tried and failed says so in other words.
    tried = [line for line in str(error).splitlines()[1:] if line.strip()]
    if "raised by all available plugins" in text and tried and all("does not support" in line for line in tried):
        precision = f" with {header.get('BitsStored')} bits" if header.get("BitsStored") else ""
        return f"is compressed as {name}{precision}, which no installed decoder supports"
    return f"has damaged pixel data in frame {number + 1} ({name}: {text})"
