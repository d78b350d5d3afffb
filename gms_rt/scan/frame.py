"""What every reader yields: frames of 8 bits, one at a time, within stated limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gms_rt.arrays import U8
from gms_rt.errors import InputError, TooLargeError

# One hundred megapixels as RGB are 300 MB: more is an archive's slide or an attack, and needs `--max-pixels`.
MAX_PIXELS = 100_000_000
# JPEG cannot store a longer side, and OpenCV's geometry overflows its 16-bit coordinates soon after.
MAX_SIDE = 65_500


@dataclass(frozen=True)
class Frame:
    """One image of a source, uint8 H×W or H×W×3 RGB, the way it is to be seen."""

    image: U8
    number: int  # from 1
    window: str = "8 bit as stored"  # how stored values became 8 bit
    spacing: tuple[float, float] | None = None  # millimetres between rows, between columns
    origin: dict[str, Any] = field(default_factory=dict)  # what the source's header says of it: columns of cases.csv
    time: float | None = None  # seconds from the beginning of a video
    source_size: tuple[int, int] | None = None  # rows and columns of an image that was decoded smaller than it is

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the source, which a mask has."""
        return self.source_size or (self.image.shape[0], self.image.shape[1])


@dataclass(frozen=True)
class ScanFrames:
    """An opened scan: its frames, read one at a time."""

    multi: bool  # whether frames are numbered in names, also where there is only one
    frames: Iterator[Frame]


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse absurd dimensions from a header before anything of that size is allocated."""
    if width < 1 or height < 1:
        raise InputError(f"has impossible dimensions {width}×{height}")
    if width * height > max_pixels:
        raise TooLargeError(
            f"has {width}×{height} = {width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}",
            fix="raise it with --max-pixels if the file is trusted",
        )
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(f"has {width}×{height} pixels, the longest side allowed is {MAX_SIDE}")
