"""DICOM files that are slices of one series: read in order as the frames of one scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import InputError
from gms_rt.scan.dicom import read_dicom
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames


@dataclass(frozen=True)
class Series:
    """The slices of one series that have one orientation and one size, in the order of their positions."""

    name: str  # of its results, the same whatever else is there: series-<number>-<short identity>
    uid: str  # SeriesInstanceUID
    modality: str
    paths: tuple[Path, ...]  # one file for each slice
    spacing: float | None  # millimetres between neighbours, None where it is not known or differs
    notes: tuple[str, ...] = ()  # gaps, duplicates: what a person should know of the stack
    copies: tuple[Path, ...] = ()  # files that are one of the slices once more, left out


class SeriesFrames(Iterator[Frame]):
    """The frames of a series, one file each. After an error it goes on with the next file."""

    def __init__(self, paths: Sequence[Path], max_pixels: int) -> None:
        self._paths = paths
        self._max_pixels = max_pixels
        self.number = 0  # of the frame that was read last, or failed

    @property
    def path(self) -> Path:
        """The file that was read last."""
        return self._paths[self.number - 1]

    def __next__(self) -> Frame:
        if self.number == len(self._paths):
            raise StopIteration
        self.number += 1
        try:
            frame = next(iter(read_dicom(self.path, max_pixels=self._max_pixels).frames))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror or error})") from error
        return dataclasses.replace(frame, number=self.number)


def read_series(paths: Sequence[Path], *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """The slices of a series as frames."""
    return ScanFrames(True, SeriesFrames(paths, max_pixels))
