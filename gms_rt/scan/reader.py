"""A scan of any format: whether a file is one, the hash of its content, its frames, its first image."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, sha256_file, sha256_json
from gms_rt.errors import InputError
from gms_rt.scan.dicom import DICOM_SUFFIXES, is_dicom, read_dicom, read_header
from gms_rt.scan.foreign import refuse_foreign
from gms_rt.scan.frame import MAX_PIXELS, ScanFrames
from gms_rt.scan.geometry import rgb
from gms_rt.scan.nifti import NIFTI_SUFFIXES, read_nifti
from gms_rt.scan.pictures import read_picture
from gms_rt.scan.series import read_series
from gms_rt.scan.video import VIDEO_SUFFIXES, read_video

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# The one list of what a scan's name can end in; a DICOM file is also known by its content.
SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES, *NIFTI_SUFFIXES, *VIDEO_SUFFIXES)
Kind = Literal["picture", "dicom", "nifti", "video"]
_MAX_PICTURE_BYTES = 4 << 30  # pictures are read whole


@dataclass(frozen=True)
class Fetched:
    """A scan whose content is known: one file, or the files of a DICOM series."""

    path: Path  # the file, of a series the first
    kind: Kind
    digest: str  # SHA-256 of the content
    data: bytes | None  # of a picture; other formats are read from the file
    series: tuple[Path, ...] = ()  # the files of a series, one for each frame, in order

    def open(self, max_pixels: int = MAX_PIXELS, least_side: int = 0) -> ScanFrames:
        """Start to decode it; with `least_side` a large JPEG at a part of its size, see `read_picture`."""
        if self.series:
            return read_series(self.series, max_pixels=max_pixels)
        if self.kind == "dicom":
            return read_dicom(self.path, max_pixels=max_pixels)
        if self.kind == "nifti":
            return read_nifti(self.path, max_pixels=max_pixels)
        if self.kind == "video":
            return read_video(self.path, max_pixels=max_pixels)
        return read_picture(self.data or b"", max_pixels=max_pixels, least_side=least_side)

    def headers(self) -> tuple[Any, ...]:
        """The DICOM headers, one for each file, for results that refer to them; none of other formats."""
        return tuple(map(read_header, self.series or (self.path,))) if self.kind == "dicom" else ()


def fetch(path: Path) -> Fetched:
    """Read and hash one scan; what is no longer there, or not a file, is an InputError."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise InputError("is a folder that cannot be read")
        if not stat.S_ISREG(about.st_mode):
            raise InputError("is not a regular file")
        if about.st_size == 0:
            raise InputError("is empty (0 bytes)")
        with path.open("rb", buffering=0) as stream:  # read twice, and nothing is left for a buffer to do
            start = stream.read(1024)
            kind = _kind(path.name.lower(), start)
            if kind == "picture" or (kind == "dicom" and not is_dicom(start)):
                refuse_foreign(start, path.name)
            if kind != "picture":
                return Fetched(path, kind, sha256_file(path), None)
            if about.st_size > _MAX_PICTURE_BYTES:
                raise InputError(f"has {about.st_size / 2**30:.1f} GiB, the limit for a picture is 4")
            data = start + stream.read()
            return Fetched(path, kind, sha256_bytes(data), data)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error


def fetch_series(paths: Sequence[Path]) -> Fetched:
    """Hash the files of a DICOM series, in the order of its frames.

    A file that cannot be read is no error here: its frame fails when it is decoded.
    """

    def digest(path: Path) -> str:
        try:
            return sha256_file(path)
        except OSError:
            return "unreadable"

    return Fetched(paths[0], "dicom", sha256_json([digest(path) for path in paths]), None, tuple(paths))


def first_image(path: Path, max_pixels: int = MAX_PIXELS) -> U8:
    """The first frame of a scan as uint8 RGB, exactly as `gms-rt infer` sees it; an InputError names the file.

    Of a file of many frames (a TIFF's pages, a DICOM loop, the slices of a volume, a video) only the first is read.
    """
    try:
        return rgb(next(iter(fetch(path).open(max_pixels).frames)).image)
    except InputError as error:
        raise InputError(error.what, where=path, fix=error.fix) from error


def is_scan(path: Path) -> bool:
    """Whether a file found in a folder is taken for a scan: by its name's end, or as DICOM by its first bytes.

    One that may not be opened is taken for a scan: it then fails with that reason, and does not go missing in silence.
    """
    if path.name.lower().endswith(SUFFIXES):
        return True
    # DICOM archives name files without an ending; the index file of a medium has the prefix but no picture.
    if path.name.lower() == "dicomdir":
        return False
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(132))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _kind(name: str, start: bytes) -> Kind:
    if is_dicom(start):
        return "dicom"
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(VIDEO_SUFFIXES):
        return "video"
    return "dicom" if name.endswith(DICOM_SUFFIXES) else "picture"
