"""The output folder: one run at a time, names that fit the file system, files that are whole or absent.

masks/<case>.png          0 and 255, at source size
overlays/<case>.jpg       the source with the mask over it
contours/<case>.json      polygons
probabilities/<case>.png  0-255, on request
dicom/<source>.dcm        DICOM SEG, for DICOM sources
dicom-fractional/<source>.dcm  probabilities as DICOM SEG, on request
dicom-report/<source>.dcm      measurements as DICOM structured report, on request
nifti/<source>_dseg.nii.gz     over NIfTI sources; over DICOM on request; in the BIDS layout under sub-*/
nifti/<source>_probseg.nii.gz  probabilities, on request
frames/<source>.csv       when the frames of a video are shown, in seconds
videos/<source>.mp4       overlay video, on request
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import check_apart, disk_errors_explained, sha256_bytes, write_bytes
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass
from gms_rt.errors import InputError, UsageError
from gms_rt.infer.bids import bids_stem
from gms_rt.infer.contours import contours
from gms_rt.infer.file_group import PartFile, part_from_bytes
from gms_rt.infer.options import BIDS, FOLDERS
from gms_rt.infer.sources import OUTPUT_MARK, FoundSources
from gms_rt.infer.writers import SOURCE_WRITERS
from gms_rt.scan import rgb
from gms_rt.scan.encode import encode_picture

ENDINGS = {
    "masks": ".png",
    "overlays": ".jpg",
    "contours": ".json",
    "probabilities": ".png",
    "frames": ".csv",
    "videos": ".mp4",
} | {writer.kind: writer.ending for writer in SOURCE_WRITERS}
_FOLDERS = {writer.kind: writer.folder for writer in SOURCE_WRITERS if writer.folder}
_BIDS_KINDS = {writer.kind for writer in SOURCE_WRITERS if "nifti" in (writer.kind, writer.folder)}
_NAME_BYTES = 250  # of a case: five more are the longest ending but those of volumes
_COLOUR = DEFAULT_CLASSES[0].colour


def frame_name(stem: str, frame: int | None) -> str:
    """The result's name for one frame; a name too long for a file is cut and told apart by a hash of all of it.

    >>> frame_name("study/scan", 3)
    'study/scan.frame-00003'
    """
    return _named(stem, "" if frame is None else f".frame-{frame:05d}", _NAME_BYTES)


def _named(stem: str, tail: str, limit: int) -> str:
    folder, slash, base = stem.rpartition("/")
    raw = os.fsencode(base)
    if len(raw) + len(tail) > limit:
        mark = f"~{sha256_bytes(raw)[:8]}"
        # Characters are cut whole; a byte that is not part of one goes with the rest.
        base = raw[: limit - len(tail) - len(mark)].decode("utf-8", "ignore") + mark
    return f"{folder}{slash}{base}{tail}"


def check_place(out: Path, found: FoundSources) -> None:
    """Refuse an output folder in which results would mix with scans, or replace them."""
    for given in [Path(text) for text in found.inputs] or [found.root]:
        check_apart(out, given)
    results = [(out / kind).resolve() for kind in ENDINGS]
    for path in (path for source in found.sources for path in source.paths):
        place = path.resolve()
        if any(place.is_relative_to(folder) for folder in results):
            raise UsageError(
                f"lies where the results of --out {out} go", where=path, fix="choose another place with --out"
            )


_OutFolder = TypeVar("_OutFolder", bound="OutFolder")


class OutFolder:
    """An output folder, held by one run at a time. Use it as a context manager."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = FOLDERS  # a run sets its own
        self._claims: dict[str, str] = {}
        self._lock: int | None = None

    def path(self, kind: str, case: str) -> Path:
        """Where a result goes."""
        if self.layout == BIDS and kind in _BIDS_KINDS:
            name = f"{bids_stem(case)}{ENDINGS[kind]}"
            if self._claims.setdefault(name, case) != case:  # in one step, for many threads
                raise InputError("another scan has its BIDS name", fix="segment them into folders of their own")
            return self.root / name
        return self.root / _FOLDERS.get(kind, kind) / _named(case, ENDINGS[kind], 255)

    def store(self, kind: str, case: str, data: bytes) -> int:
        """Write one result where it goes and return its size."""
        return write_result(self.path(kind, case), data)

    def part(self, kind: str, case: str, data: bytes) -> PartFile:
        """Write one result next to its place, which it takes with others in `commit_parts`."""
        return part_of_result(self.path(kind, case), data)

    def __enter__(self: _OutFolder) -> _OutFolder:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.root / OUTPUT_MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release()
            raise UsageError(
                "another run is writing into this folder", where=self.root, fix="wait for it, or choose another --out"
            ) from error
        except OSError as error:
            self._release()
            raise UsageError(
                f"cannot be written ({error.strerror})", where=self.root, fix="choose another place with --out"
            ) from error
        self.sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def sweep(self) -> None:
        """Remove what a killed process left half-written; nobody else writes here while the lock is held."""
        for part in self.root.glob(".part-*"):
            part.unlink(missing_ok=True)
        folders = {_FOLDERS.get(kind, kind) for kind in ENDINGS}
        for folder in (*map(self.root.joinpath, sorted(folders)), *self.root.glob("sub-*")):
            for parent, _, names in os.walk(folder):
                for name in names:
                    if name.startswith(".part-"):
                        (Path(parent) / name).unlink(missing_ok=True)


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Turn what a file system refuses of one name into an InputError: it fails a case, not the run."""
    try:
        yield
    except OSError as error:
        raise InputError(f"its result cannot be written ({error.strerror or error})", where=path.name) from error
    except UsageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR):
            raise InputError(f"its result cannot be written ({cause.strerror})", where=path.name) from error
        raise


def write_result(path: Path, data: bytes) -> int:
    """Write one result and return its size."""
    with as_input_error(path):
        write_bytes(path, data)
    return len(data)


def part_of_result(path: Path, data: bytes) -> PartFile:
    """Write one result next to its place, which it takes with others in `commit_parts`."""
    with as_input_error(path), disk_errors_explained(path):
        return part_from_bytes(path, data)


def levels_png(levels: U8) -> bytes:
    """A probability map (0-255) as PNG."""
    # Flat areas compress best without filters, and five times as fast; OpenCV before 4.11 chooses itself.
    unfiltered = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
    return encode_picture(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 1, *unfiltered])


def draw_overlay(image: U8, mask: U8, colour: tuple[int, int, int] = _COLOUR) -> U8:
    """The image in RGB with the mask tinted and outlined."""
    shown = rgb(image).copy()
    left, top, width, height = cv2.boundingRect(mask)
    if width:
        part = shown[top : top + height, left : left + width]
        tint = np.empty_like(part)
        tint[:] = colour
        tinted = cv2.addWeighted(part, 0.7, tint, 0.3, 0)
        part[:] = cv2.copyTo(tinted, mask[top : top + height, left : left + width], part.copy())
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, outlines, -1, colour, max(1, round(max(mask.shape) / 500)))
    return shown


def overlay_jpeg(shown: U8) -> bytes:
    """An overlay as JPEG: to look at, not to measure."""
    return encode_picture(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])


def contour_json(
    labels: U8, spacing: tuple[float, float] | None, classes: Sequence[SegmentClass] = DEFAULT_CLASSES
) -> bytes:
    """The polygons of a label map (0 is background, k the k-th class) as JSON."""
    return (json.dumps(contours(labels, spacing, classes), allow_nan=False) + "\n").encode()


def frames_csv(times: Mapping[int, float]) -> bytes:
    """The times of a video's frames as CSV."""
    lines = [f"{number},{times[number]:.6f}" for number in sorted(times)]
    return ("\n".join(["frame,time_s", *lines]) + "\n").encode()
