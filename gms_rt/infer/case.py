"""One source on its way through the pipeline: its frames' rows and files, and what is written when all are in."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt import __version__
from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path
from gms_rt.errors import InputError
from gms_rt.infer import outputs
from gms_rt.infer.confidence import confidence
from gms_rt.infer.dicom_seg import Algorithm, write_seg
from gms_rt.infer.measure import CaseRow, as_text, measure_mask
from gms_rt.infer.options import InferOptions
from gms_rt.infer.postprocess import clean_mask
from gms_rt.infer.predict import Predictor
from gms_rt.infer.sources import Source
from gms_rt.scan import Frame
from gms_rt.scan.mask import levels_from_probability, mask_from_probability
from gms_rt.scan.reader import Fetched
from gms_rt.scan.video import VideoWriter, frame_rate


@dataclass(frozen=True)
class CaseSettings:
    """What every case shares: where results go and how they are made."""

    out: outputs.OutFolder
    predictor: Predictor
    engine_sha256: str  # of its manifest

    @property
    def options(self) -> InferOptions:
        """How masks are made and what is written."""
        return self.predictor.options


class ScanCase:
    """A source and its results so far. Frames may be written by many threads, in any order."""

    def __init__(self, index: int, source: Source, settings: CaseSettings) -> None:
        self.index = index
        self.source = source
        self.settings = settings
        self.digest = ""
        self.multi = False
        self.reused = False
        self.files: dict[str, int] = {}
        self._rows: dict[int, CaseRow] = {}
        self._tail: list[CaseRow] = []
        self._fetched: Fetched | None = None
        self._kind: str | None = None
        self._times: dict[int, float] = {}
        self._packed: dict[int, tuple[tuple[int, ...], U8]] = {}
        self._lock = threading.Lock()
        self._video: VideoWriter | None = None
        self._video_size = (0, 0)
        self._video_part = contextlib.ExitStack()
        self._open = 1  # frames not yet written, and one for the decoder

    @property
    def kind(self) -> str | None:
        """The source's format, None where it was not opened."""
        return self._kind

    @property
    def rows(self) -> list[CaseRow]:
        """Rows in the order of frames; what concerns the whole source comes last."""
        return [self._rows[number] for number in sorted(self._rows)] + self._tail

    def reuse(self, rows: list[CaseRow], files: dict[str, int]) -> None:
        """Take the results of an earlier run."""
        self.reused = True
        self._tail = rows
        self.files = files

    def begin(self, fetched: Fetched, multi: bool) -> None:
        """The source is open."""
        self._fetched = fetched
        self._kind = fetched.kind
        self.multi = multi

    def expect(self) -> None:
        """One more frame is on its way."""
        with self._lock:
            self._open += 1

    def arrived(self) -> bool:
        """A frame is written, or decoding has ended; True when that was the last thing awaited."""
        with self._lock:
            self._open -= 1
            return self._open == 0

    def fail(self, reason: str, frame: int | None = None) -> None:
        """Record why a frame, or the source from here on, has no result."""
        row = self._row(frame)
        row |= {"status": "failed", "error": reason}
        with self._lock:
            if frame is None:
                self._tail.append(row)
            else:
                self._rows[frame] = row
                if self._video is not None:
                    self._video.put(frame, None)

    def write(self, frame: Frame, levels: NDArray[Any], seconds: float, start: float) -> None:
        """Make one frame's mask and write all that belongs to it; `seconds` were spent on it before `start`."""
        options = self.settings.options
        restored = self.settings.predictor.restore(levels, frame.image.shape)
        mask = mask_from_probability(restored, options.threshold)
        mask = clean_mask(mask, largest=options.largest, fill=options.fill_holes, min_area=options.min_area)
        row = self._row(frame.number) | measure_mask(mask, frame.spacing)
        row |= {"confidence": confidence(levels, options.threshold), "window": frame.window}
        name = outputs.frame_name(self.source.stem, frame.number if self.multi else None)
        files = {"masks": outputs.mask_png(mask)}
        shown = outputs.draw_overlay(frame.image, mask) if options.overlays or self._wants_video else None
        if options.overlays and shown is not None:
            files["overlays"] = outputs.overlay_jpeg(shown)
        if options.contours:
            files["contours"] = outputs.contour_json(mask, frame.spacing)
        if options.probabilities:
            files["probabilities"] = outputs.mask_png(levels_from_probability(restored))
        sizes = {f"{kind}/{name}{outputs.ENDINGS[kind]}": self._store(kind, name, files[kind]) for kind in files}
        row["seconds"] = round(seconds + time.perf_counter() - start, 4)
        with self._lock:
            self.files |= sizes
            self._rows[frame.number] = row
            if frame.time is not None:
                self._times[frame.number] = frame.time
            if self._wants_seg:
                self._packed[frame.number] = (mask.shape, np.packbits(mask != 0))
            if self._wants_video and shown is not None:
                self._show(frame, shown)

    def finish(self) -> None:
        """Write what needs all frames: the times of a video's frames, the overlay video and the DICOM SEG."""
        if self._times:
            self._store("frames", outputs.frame_name(self.source.stem, None), outputs.frames_csv(self._times))
            self._add_file("frames")
        with self._video_part:
            if self._video is not None:
                self._video.close()
        if self._video is not None:
            self._add_file("videos")
        if self._wants_seg and self._packed and not any(row["status"] == "failed" for row in self.rows):
            self._segment()
        self._packed.clear()
        self._fetched = None

    def abandon(self) -> None:
        """Drop what is half-written: the run ends before this source does."""
        if self._video is not None:
            self._video.close()
            with contextlib.suppress(_Abandoned), self._video_part:
                raise _Abandoned

    @property
    def _wants_video(self) -> bool:
        return self.settings.options.overlay_video and self.multi

    @property
    def _wants_seg(self) -> bool:
        return self.settings.options.dicom_seg and self._fetched is not None and self._fetched.kind == "dicom"

    def _row(self, frame: int | None) -> CaseRow:
        number = frame if self.multi else None
        # The case is named as its files are, so that rows and files find each other.
        return {
            "case": as_text(outputs.frame_name(self.source.stem, number)),
            "source": as_text(self.source.name),
            "frame": number,
        }

    def _store(self, kind: str, name: str, data: bytes) -> int:
        return outputs.write_result(self.settings.out.path(kind, name), data)

    def _add_file(self, kind: str) -> None:
        path = self.settings.out.path(kind, outputs.frame_name(self.source.stem, None))
        self.files[str(path.relative_to(self.settings.out.root))] = path.stat().st_size

    def _show(self, frame: Frame, shown: U8) -> None:
        if self._video is None:
            path = self.settings.out.path("videos", outputs.frame_name(self.source.stem, None))
            part = self._video_part.enter_context(atomic_path(path))
            is_video = self._fetched is not None and self._fetched.kind == "video"
            rate = frame_rate(self.source.path) if is_video else 10.0
            self._video_size = (shown.shape[1], shown.shape[0])
            self._video = VideoWriter(part, *self._video_size, rate)
            for failed in (n for n, row in self._rows.items() if row["status"] == "failed"):
                self._video.put(failed, None)
        if (shown.shape[1], shown.shape[0]) != self._video_size:  # pages of a TIFF may differ in size
            shown = np.asarray(cv2.resize(shown, self._video_size), np.uint8)
        self._video.put(frame.number, shown, frame.time)

    def _segment(self) -> None:
        assert self._fetched is not None
        path = self.settings.out.path("dicom", outputs.frame_name(self.source.stem, None))
        masks = [
            np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape)
            for _, (shape, bits) in sorted(self._packed.items())
        ]
        algorithm = Algorithm(self.settings.predictor.engine.manifest.name, self.settings.engine_sha256, __version__)
        try:
            write_seg(path, self._fetched.header(), np.stack(masks), algorithm)
            self._add_file("dicom")
        except (InputError, OSError) as error:
            self.fail(f"no DICOM SEG, the masks are written: {error}")


class _Abandoned(Exception):
    """Makes the video's temporary file go away."""


def failure_reason(error: BaseException, path: Path) -> str:
    """Why a case failed, without repeating its name."""
    what = error.what if isinstance(error, InputError) else str(error) or type(error).__name__
    fix = getattr(error, "fix", None)
    text = f"{what}; {fix}" if fix else what
    return as_text(text.replace(str(path), path.name))
