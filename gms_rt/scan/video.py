"""Video files: frames in order with their times, and a writer that puts them back in order and at these times.

A frame is given as it is to be seen: turned as the file says, and with square pixels. Where stored pixels are not
square, as in video of the old television formats, the picture is stretched along one axis, so masks are of that size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, InputError
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size
from gms_rt.scan.geometry import BILINEAR
from gms_rt.scan.mp4_times import set_frame_times

_COUNTED = (".mp4", ".m4v", ".mov")  # containers that say how many frames they hold
_FLATTEST = 0.1  # no camera's pixels are ten times as long as they are wide
_SAME_TIME = 0.001  # seconds
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")


def read_video(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a video file; its frames come in order, turned as its own rotation says."""
    capture = cv2.VideoCapture(str(path))
    stretch = _stretch(capture)
    width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH) * stretch[0])
    height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT) * stretch[1])
    if not capture.isOpened() or not width:
        capture.release()
        raise InputError("is not a video this machine's OpenCV can decode, or is damaged")
    try:
        check_size(width, height, max_pixels)
    except InputError:
        capture.release()
        raise
    return ScanFrames(True, _frames(capture, stretch, path.name.lower().endswith(_COUNTED)))


def _stretch(capture: cv2.VideoCapture) -> tuple[float, float]:
    """Factors of width and height that make pixels square; never smaller than what is stored."""
    wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if not (wide > 0 and high > 0 and _FLATTEST < wide / high < 1 / _FLATTEST):
        return 1.0, 1.0
    ratio = wide / high
    if int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90 and capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        ratio = 1 / ratio
    return (ratio, 1.0) if ratio > 1 else (1.0, 1 / ratio)


def frame_rate(path: Path) -> float:
    """Frames per second as the file states them, 25 where it does not."""
    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate if 0 < rate <= 1000 else 25.0


def _frames(capture: cv2.VideoCapture, stretch: tuple[float, float], counted: bool) -> Iterator[Frame]:
    stated, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    note = "" if stretch == (1.0, 1.0) else f", pixels of {stretch[0] / stretch[1]:.4g}:1 made square"
    try:
        number, time = 0, -1.0
        while True:
            there, image = capture.read()
            if not there:
                break
            number += 1
            time = max(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, time)
            shown = _rgb(np.asarray(image, np.uint8))
            if note:
                size = round(shown.shape[1] * stretch[0]), round(shown.shape[0] * stretch[1])
                shown = np.asarray(cv2.resize(shown, size, interpolation=BILINEAR), np.uint8)
            yield Frame(shown, number, f"8 bit as stored{note}", time=round(time, 6))
        # Only a clear difference means that the file is cut short. Where the container does not count its frames, their
        # number is a guess from its length and rate, and the length is what can be compared.
        short = stated - number > max(2, stated // 100)
        if short and (counted or (rate > 0 and time < 0.9 * stated / rate - 0.5)):
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
        self._path = path
        self._rate = rate
        self._pending: dict[int, tuple[U8 | None, float | None]] = {}
        self._next = 1
        self._times: list[float | None] = []
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, self._size)
        if not self._writer.isOpened():
            raise GmsError("this machine's OpenCV cannot write MP4 video", where=path, fix="leave out --overlay-video")

    def put(self, number: int, image: U8 | None, time: float | None = None) -> None:
        """Give frame `number` and when it is shown, None where it is missing; it is written once all before it are.

        The caller holds a lock.
        """
        self._pending[number] = image, time
        while self._next in self._pending:
            frame, shown_at = self._pending.pop(self._next)
            self._next += 1
            if frame is None:
                continue
            bottom, right = self._size[1] - frame.shape[0], self._size[0] - frame.shape[1]
            if bottom or right:
                frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            self._times.append(shown_at)

    def close(self) -> None:
        """Finish the file, and set the times of its frames where they are not those of its rate."""
        self._writer.release()
        times = [time for time in self._times if time is not None]
        even = all(abs(time - times[0] - number / self._rate) < _SAME_TIME for number, time in enumerate(times))
        if times and len(times) == len(self._times) and not even:
            set_frame_times(self._path, times, 1 / self._rate)
