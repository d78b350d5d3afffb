"""Video files: frames in order, and a writer that puts them back in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, InputError
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")


def read_video(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a video file; its frames come in order, turned as its own rotation says."""
    capture = cv2.VideoCapture(str(path))
    width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if not capture.isOpened() or not width:
        capture.release()
        raise InputError("is not a video this machine's OpenCV can decode, or is damaged")
    try:
        check_size(width, height, max_pixels)
    except InputError:
        capture.release()
        raise
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return ScanFrames(True, _frames(capture, stated))


def frame_rate(path: Path) -> float:
    """Frames per second as the file states them, 25 where it does not."""
    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate if 0 < rate <= 1000 else 25.0


def _frames(capture: cv2.VideoCapture, stated: int) -> Iterator[Frame]:
    try:
        number = 0
        while True:
            there, image = capture.read()
            if not there:
                break
            number += 1
            yield Frame(_rgb(image), number)
        # Containers estimate their length, so only a clear difference means that the file is cut short.
        if stated - number > max(2, stated // 100):
            raise InputError(f"ends after {number} of {stated} frames")
        if number == 0:
            raise InputError("has no frames")
    finally:
        capture.release()


def _rgb(image: U8) -> U8:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


class VideoWriter:
    """An MP4 file of RGB frames of one size. Frames may come from many threads, numbered from 1, in any order."""

    def __init__(self, path: Path, width: int, height: int, rate: float) -> None:
        # MPEG-4 wants even sides; the last row or column is repeated where it must be.
        self._size = (width + width % 2, height + height % 2)
        self._pending: dict[int, U8 | None] = {}
        self._next = 1
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, self._size)
        if not self._writer.isOpened():
            raise GmsError("this machine's OpenCV cannot write MP4 video", where=path, fix="leave out --overlay-video")

    def put(self, number: int, image: U8 | None) -> None:
        """Give frame `number`, None where it is missing; it is written once all before it are.

        The caller holds a lock.
        """
        self._pending[number] = image
        while self._next in self._pending:
            frame = self._pending.pop(self._next)
            self._next += 1
            if frame is None:
                continue
            bottom, right = self._size[1] - frame.shape[0], self._size[0] - frame.shape[1]
            if bottom or right:
                frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
