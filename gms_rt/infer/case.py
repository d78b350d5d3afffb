"""One source on its way through the pipeline: its frames' rows and files, and what is written when all are in."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import InputError
from gms_rt.infer import outputs
from gms_rt.infer.case_settings import CaseSettings, WrittenFrame
from gms_rt.infer.confidence import confidence
from gms_rt.infer.failure import failure_reason
from gms_rt.infer.file_group import PartFile
from gms_rt.infer.measure import CaseRow, as_text, measure_mask, measure_series
from gms_rt.infer.overlay_video import OverlayVideo
from gms_rt.infer.result import SourceResult
from gms_rt.infer.sources import Source
from gms_rt.infer.stack import MaskStack
from gms_rt.infer.writers import SOURCE_WRITERS, SourceWriter
from gms_rt.runtime.masks import png_of_mask
from gms_rt.scan import Frame
from gms_rt.scan.mask import levels_from_probability
from gms_rt.scan.reader import Fetched
from gms_rt.scan.video import frame_rate


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
        self._writers: list[SourceWriter] = []
        self._by_frame = True
        self._times: dict[int, float] = {}
        self._stack = MaskStack()
        self._video: OverlayVideo | None = None
        self._lock = threading.Lock()
        self._pending: dict[str, PartFile] = {}  # files that are written and not in their places
        self._open = 1  # frames not yet written, and one for the decoder

    @property
    def kind(self) -> str | None:
        """The source's format, None where it was not opened."""
        return self._kind

    @property
    def rows(self) -> list[CaseRow]:
        """Rows in the order of frames; what concerns the whole source comes last."""
        rows = [self._rows[number] for number in sorted(self._rows)] + self._tail
        return rows if self.reused else [self._cleaned(row) for row in rows]

    def reuse(self, rows: list[CaseRow], files: dict[str, int]) -> None:
        """Take the results of an earlier run."""
        self.reused = True
        members = self.source.members
        if members:  # files of a series may have other names by now
            rows = [row | {"source": as_text(members[row["frame"] - 1])} if row["frame"] else row for row in rows]
        self._tail = rows
        self.files = files

    def begin(self, fetched: Fetched, multi: bool) -> None:
        """The source is open."""
        self._fetched = fetched
        self._kind = fetched.kind
        self.multi = multi
        series = self.source.series is not None
        self._writers = [writer for writer in SOURCE_WRITERS if writer.wanted(self.settings.options, fetched)]
        # The masks of a series are in its whole file; where none is wanted, each slice has its own.
        whole = any(writer.masks for writer in self._writers)
        self._by_frame = self.settings.options.slices or not (series and whole)
        if self.settings.options.overlay_video and multi:
            path = self.settings.out.path("videos", outputs.frame_name(self.source.stem, None))
            self._video = OverlayVideo(path, frame_rate(fetched.path) if fetched.kind == "video" else 10.0)

    def expect(self) -> None:
        """One more frame is on its way."""
        with self._lock:
            self._open += 1

    def arrived(self) -> bool:
        """A frame is written, or decoding has ended; True when that was the last thing awaited."""
        with self._lock:
            self._open -= 1
            return self._open == 0

    def skip(self, reason: str) -> None:
        """Record that the source has no image: a valid file, but nothing to segment."""
        with self._lock:
            self._tail.append(self._row(None) | {"status": "skipped", "error": self._told(reason)})

    def fail(self, reason: str, frame: int | None = None) -> None:
        """Record why a frame, or the source from here on, has no result."""
        row = self._row(frame)
        row |= {"status": "failed", "error": self._told(reason)}
        with self._lock:
            if frame is None:
                self._tail.append(row)
            else:
                self._rows[frame] = row
                if self._video is not None:
                    self._video.put(frame, None)

    def write(self, frame: Frame, levels: NDArray[Any], seconds: float, start: float) -> WrittenFrame:
        """Make one frame's mask and write all that belongs to it; `seconds` were spent on it before `start`.

        Its files have their names only after `commit_parts`; then `place` counts the frame.
        """
        options = self.settings.options
        restored = self.settings.predictor.restore(levels, frame.size)
        mask = self.settings.predictor.mask(restored)
        row = self._row(frame.number) | frame.origin | measure_mask(mask, frame.spacing)
        row |= {"confidence": confidence(levels, options.threshold), "window": frame.window}
        row["class"] = ", ".join(each.name for each in self.settings.classes)
        name = outputs.frame_name(self.source.stem, frame.number if self.multi else None)
        wants_levels = any(writer.probabilities for writer in self._writers)
        probabilities = levels_from_probability(restored) if options.probabilities or wants_levels else None
        files = {"masks": png_of_mask(mask)} if self._by_frame else {}
        overlays = options.overlays and self._by_frame
        colour = self.settings.classes[0].colour
        shown = outputs.draw_overlay(frame.image, mask, colour) if overlays or self._video is not None else None
        if overlays and shown is not None:
            files["overlays"] = outputs.overlay_jpeg(shown)
        if options.contours and self._by_frame:
            labels = (mask != 0).astype(np.uint8)  # today's masks have the first class only
            files["contours"] = outputs.contour_json(labels, frame.spacing, self.settings.classes)
        if options.probabilities and probabilities is not None:
            files["probabilities"] = outputs.levels_png(probabilities)
        parts = self._write_parts(name, files)
        row["seconds"] = round(seconds + time.perf_counter() - start, 4)
        return WrittenFrame(
            frame.number,
            row,
            parts,
            mask if self._writers else None,
            probabilities if wants_levels else None,
            shown if self._video is not None else None,
            frame.time,
        )

    def place(self, written: WrittenFrame, errors: Mapping[PartFile, OSError]) -> None:
        """Count a frame whose files have their names, or fail it where one could not take its name."""
        for part in written.parts.values():
            del self._pending[part.part]
        for name, part in written.parts.items():
            if part in errors:
                reason = f"its result cannot be written ({errors[part].strerror or errors[part]})"
                self.fail(failure_reason(InputError(reason, where=name), self.source.path), written.number)
                return
        with self._lock:
            self.files |= {name: part.size for name, part in written.parts.items()}
            self._rows[written.number] = written.row
            if written.mask is not None:
                self._stack.add(written.number, written.mask, written.probabilities)
            if self._video is not None:
                self._video.put(written.number, written.shown, written.time)
            if written.time is not None:
                self._times[written.number] = written.time
            count = len(self._rows)
        if self.settings.on_frame is not None:
            self.settings.on_frame(self, count)

    def finish(self) -> None:
        """Write what needs all frames: their times, the overlay video and the files of the whole source."""
        if self._times:
            self.settings.out.store(
                "frames", outputs.frame_name(self.source.stem, None), outputs.frames_csv(self._times)
            )
            self._add_file("frames")
        if self._video is not None and self._video.close():
            self._add_file("videos")
        rows = [self._rows[number] for number in sorted(self._rows)]
        self._measure_series(rows)
        if self._writers and rows:
            written = self._write_whole(rows)
            if not written and not self._by_frame:
                self._write_masks()
            self._measure_series(rows)  # with what came of the files
        self._stack.clear()
        self._fetched = None

    def abandon(self) -> None:
        """Drop what is half-written: the run ends before this source does."""
        for part in self._pending.values():
            part.discard()
        if self._video is not None:
            self._video.abandon()

    def _measure_series(self, rows: list[CaseRow]) -> None:
        """Give the slices of a series their share of the volume. The series' own row travels with the first of them."""
        series = self.source.series
        if series is not None and rows:
            # So that the journal keeps it without knowing of series.
            rows[0]["series"] = measure_series(as_text(self.source.stem), rows, series.spacing, series.notes)

    def _row(self, frame: int | None) -> CaseRow:
        number = frame if self.multi else None
        members = self.source.members  # a slice is known by its own file
        name = members[frame - 1] if members and frame is not None else self.source.name
        # The case is named as its files are, so that rows and files find each other.
        return {
            "case": as_text(outputs.frame_name(self.source.stem, number)),
            "source": as_text(name),
            "frame": number,
        }

    def _write_parts(self, name: str, files: Mapping[str, bytes]) -> dict[str, PartFile]:
        """Write the files of a frame next to their places, all of them or none."""
        parts: dict[str, PartFile] = {}
        try:
            for kind, data in files.items():
                part = self.settings.out.part(kind, name, data)
                parts[f"{kind}/{name}{outputs.ENDINGS[kind]}"] = self._pending[part.part] = part
        except BaseException:
            for part in parts.values():
                del self._pending[part.part]
                part.discard()
            raise
        return parts

    def _add_file(self, kind: str) -> str:
        path = self.settings.out.path(kind, outputs.frame_name(self.source.stem, None))
        name = str(path.relative_to(self.settings.out.root))
        self.files[name] = path.stat().st_size
        return name

    def _write_masks(self) -> None:
        """The masks slice by slice, where they are in no whole file."""
        for number in self._stack.numbers:
            name = outputs.frame_name(self.source.stem, number)
            try:
                size = self.settings.out.store("masks", name, png_of_mask(self._stack.mask(number) * np.uint8(255)))
                self.files[f"masks/{name}{outputs.ENDINGS['masks']}"] = size
            except InputError as error:
                reason = self._told(failure_reason(error, self.source.path))
                self._rows[number] |= {"status": "failed", "error": reason}

    def _write_whole(self, rows: list[CaseRow]) -> bool:
        """Let each writer of whole sources make its file, or tell in the rows why not. True if masks were written."""
        written: set[str] = set()
        result: SourceResult | None = None
        for writer in self._writers:
            if writer.describes and writer.describes not in written:
                continue
            column, text = writer.column, ""
            try:
                if any(row["status"] == "failed" for row in self.rows):
                    raise InputError("not every frame has a mask")
                if not self._stack.even:
                    raise InputError("its frames differ in size")
                result = result or self._result(rows)
                path = self.settings.out.path(writer.kind, outputs.frame_name(self.source.stem, None))
                with outputs.as_input_error(path):
                    writer.write(path, result)
                text = as_text(self._add_file(writer.kind))
                written.add(writer.kind)
            except (InputError, OSError, MemoryError) as error:
                text = f"no {writer.label}: {self._told(failure_reason(error, self.source.path))}"
                column = column or "note"
            if column:
                for row in rows:
                    row[column] = f"{row['note']}; {text}" if column == "note" and row.get("note") else text
        return any(writer.masks and writer.kind in written for writer in self._writers)

    def _result(self, rows: list[CaseRow]) -> SourceResult:
        assert self._fetched is not None
        result = SourceResult(
            paths=self.source.paths,
            digest=self.digest,
            labels=self._stack.labels(),
            rows=[self._cleaned(row) for row in rows],
            maker=self.settings.maker,
            key=self.settings.key,
            probabilities=self._stack.probabilities(),
            classes=self.settings.classes,
            headers=self._fetched.headers(),
        )
        cleaner = self.settings.deidentifier
        return cleaner.result(result) if cleaner else result

    def _told(self, reason: str) -> str:
        cleaner = self.settings.deidentifier
        return cleaner.reason(reason) if cleaner else reason

    def _cleaned(self, row: CaseRow) -> CaseRow:
        cleaner = self.settings.deidentifier
        return cleaner.row(row, self.source) if cleaner else row
