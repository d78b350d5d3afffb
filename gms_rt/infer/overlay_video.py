"""A source's frames with their masks drawn in, as a video that is whole or absent."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path
from gms_rt.scan.geometry import BILINEAR
from gms_rt.scan.video import VideoWriter


class OverlayVideo:
    """A video that takes frames in any order. Call `close` or `abandon` at the end."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self._rate = rate
        self._part = contextlib.ExitStack()
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._missing: list[int] = []

    def put(self, number: int, shown: U8 | None, time: float | None = None) -> None:
        """Add a frame and the second it is shown at; None where it has no picture."""
        if self._writer is None:
            if shown is None:
                self._missing.append(number)
                return
            part = self._part.enter_context(atomic_path(self.path))
            self._size = (shown.shape[1], shown.shape[0])
            self._writer = VideoWriter(part, *self._size, self._rate)
            for missing in self._missing:
                self._writer.put(missing, None)
        if shown is not None and (shown.shape[1], shown.shape[0]) != self._size:  # pages of a TIFF may differ in size
            shown = np.asarray(cv2.resize(shown, self._size, interpolation=BILINEAR), np.uint8)
        self._writer.put(number, shown, time)

    def close(self) -> bool:
        """Finish the file; False where no frame had a picture and there is none."""
        with self._part:
            if self._writer is not None:
                self._writer.close()
        return self._writer is not None

    def abandon(self) -> None:
        """Drop what is half-written."""
        if self._writer is not None:
            self._writer.close()
        with contextlib.suppress(_Abandoned), self._part:
            raise _Abandoned


class _Abandoned(Exception):
    """Makes the temporary file go away."""
