"""A process as a run wants it: threads and warnings of the libraries that read scans."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def tuned_process() -> Iterator[None]:
    """Tune this process for a while. Readers warn about every oddity of a file; what matters stands in cases.csv."""
    # The pipeline's own threads decode and write; OpenCV's own would only wait for the same cores.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    level = os.environ.get("OPENCV_FFMPEG_LOGLEVEL")
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = level or "-8"
    with warnings.catch_warnings():
        for module in ("PIL", "pydicom", "highdicom", "nibabel"):
            warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
        try:
            yield
        finally:
            cv2.setNumThreads(threads)
            if level is None:
                del os.environ["OPENCV_FFMPEG_LOGLEVEL"]
