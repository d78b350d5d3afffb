"""A source to its results, in memory, by the same code as `gms-rt infer`: masks are equal byte for byte.

One thread decodes and writes; while the engine works on a frame, the next ones are decoded. What a whole-file writer
(DICOM SEG, NIfTI) makes goes through the request's folder.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.errors import GmsError, InputError, NoImageError, TooLargeError
from gms_rt.infer.case import ScanCase
from gms_rt.infer.case_settings import CaseSettings
from gms_rt.infer.failure import failure_reason
from gms_rt.infer.file_group import PartFile
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import OutFolder, overlay_jpeg
from gms_rt.infer.predict import Predictor
from gms_rt.infer.sources import Source
from gms_rt.scan import Frame, rgb
from gms_rt.scan.reader import Fetched
from gms_rt.scan.series import SeriesFrames
from gms_rt.serve.counters import Counters
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.intake import Taken, Workspace
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.queue import Ticket
from gms_rt.serve.refusals import RefusedError, forget_frames

_BYTES_PER_PIXEL = 16  # image, probability as float, mask, PNG
_LARGE = 64 << 20  # bytes from which on an image is worked on alone
_AHEAD = 2  # frames decoded while the engine works, for each image that it works on


class _RequestTooLargeError(TooLargeError):
    """More than one request may have, whatever its files are."""


class MemoryFolder(OutFolder):
    """An output folder whose files stay in memory, but for those that writers of whole sources make."""

    def __init__(self, root: Path, most: int) -> None:
        super().__init__(root)
        self.contents: dict[str, bytes] = {}  # by name below the folder
        self._left = most

    def store(self, kind: str, case: str, data: bytes) -> int:
        """Keep one result and return its size."""
        self.hold(len(data))
        self.contents[str(self.path(kind, case).relative_to(self.root))] = data
        return len(data)

    def hold(self, size: int) -> None:
        """Count what else the answer will hold."""
        self._left -= size
        if self._left < 0:
            raise _RequestTooLargeError("has results larger than one answer may be", fix="send fewer images at a time")

    def part(self, kind: str, case: str, data: bytes) -> PartFile:
        """Keep one result: it has nothing to wait for."""
        name = str(self.path(kind, case))
        return PartFile(name, name, self.store(kind, case, data))

    def load(self, name: str) -> None:
        """Take a file that a writer made into memory."""
        self.contents[name] = (self.root / name).read_bytes()


@dataclass
class Spent:
    """Seconds that a request spent in each stage; overlapping ones count each for itself."""

    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    write: float = 0.0


@dataclass(frozen=True)
class SegmentedSource:
    """One source with its rows (as in cases.csv) and files (as `infer` names them)."""

    source: Source
    kind: str | None
    digest: str
    rows: list[CaseRow]
    files: dict[str, bytes]
    images: dict[int, bytes] = field(default_factory=dict)  # the frames as they are to be seen, JPEG, where asked for
    error: GmsError | None = None  # why there is no result at all


@dataclass(frozen=True)
class Asked:
    """What is made of each source."""

    options: InferOptions  # which files
    images: bool = False  # whether the frames themselves are wanted


class SegmentJob:
    """The sources of one request through one engine. Call `run` once, from one thread."""

    def __init__(
        self, model: ServedModel, asked: Asked, deadline: Deadline, limits: ServeLimits, counters: Counters
    ) -> None:
        self.model = model
        self.spent = Spent()
        self._asked = asked
        self._deadline = deadline
        self._limits = limits
        self._counters = counters
        self._large = model.large
        self._frames_left = limits.max_frames

    def run(self, taken: Taken, workspace: Workspace) -> list[SegmentedSource]:
        """Segment every source. One that cannot be read has an error; a request that is late or too large raises."""
        folder = MemoryFolder(workspace.name, self._limits.max_answer)
        if any(source.path not in taken.pictures for source in taken.sources):
            folder.root = workspace.folder
        model = self.model
        settings = CaseSettings(
            folder,
            Predictor(model.engine, dataclasses.replace(self._asked.options, max_pixels=self._limits.max_pixels)),
            model.maker,
            model.key,
            model.engine.manifest.segment_classes,
        )
        found = []
        for index, source in enumerate(taken.sources):
            folder.contents = {}
            found.append(self._source(ScanCase(index, source, settings), taken, folder))
        for stage, seconds in dataclasses.asdict(self.spent).items():
            self._counters.stage_seconds.labels(stage).observe(seconds)
        return found

    def _source(self, case: ScanCase, taken: Taken, folder: MemoryFolder) -> SegmentedSource:
        images: dict[int, bytes] = {}
        error: GmsError | None = None
        try:
            fetched = taken.fetch(case.source)
            case.digest = fetched.digest
            self._frames(case, fetched, folder, images)
        except (RefusedError, _RequestTooLargeError):
            raise
        except NoImageError as raised:
            error = raised
            case.skip(failure_reason(raised, case.source.path))
        except InputError as raised:
            error = raised
            case.fail(failure_reason(raised, case.source.path))
        except GmsError:  # of the engine
            raise
        except MemoryError:
            error = InputError("needs more memory than there is")
            case.fail(error.what)
        except Exception as raised:  # what a foreign reader raises in its own way costs the file, not the service
            error = InputError(f"cannot be read ({type(raised).__name__})")
            case.fail(error.what)
        forget_frames(error)
        start = time.perf_counter()
        case.finish()
        for name in case.files:
            if name not in folder.contents:
                folder.load(name)
        self.spent.write += time.perf_counter() - start
        for row in case.rows:
            self._counters.frames.labels(self.model.name, row["status"]).inc()
        made = any(row["status"] in ("ok", "empty") for row in case.rows)
        return SegmentedSource(
            case.source, case.kind, case.digest, case.rows, folder.contents, images, None if made else error
        )

    def _frames(self, case: ScanCase, fetched: Fetched, folder: MemoryFolder, images: dict[int, bytes]) -> None:
        """Decode a source, queue its frames, and write each when its map is there."""
        start = time.perf_counter()
        reading = fetched.open(self._limits.max_pixels)
        case.begin(fetched, reading.multi)
        frames = reading.frames
        pending: deque[tuple[Frame, Ticket, float]] = deque()
        while True:
            self._deadline.check()
            try:
                frame = next(frames, None)
            except (InputError, MemoryError) as error:
                if not isinstance(frames, SeriesFrames):
                    self._write_pending(case, pending, 0)
                    raise
                case.fail(failure_reason(error, frames.path), frames.number)  # one slice: the others go on
                continue
            if frame is None:
                break
            self._frames_left -= 1
            if self._frames_left < 0:
                raise _RequestTooLargeError(
                    f"has more than {self._limits.max_frames} images", fix="send fewer at a time, or raise --max-frames"
                )
            if self._asked.images:
                images[frame.number] = overlay_jpeg(rgb(frame.image))  # not the pixels: thousands may come
                folder.hold(len(images[frame.number]))
            prepared = self.model.predictor.prepare(frame.image)
            seconds = time.perf_counter() - start
            self.spent.decode += seconds
            cost = frame.image.shape[0] * frame.image.shape[1] * _BYTES_PER_PIXEL
            large = cost > _LARGE
            if large:  # alone in this request, and only so many of all requests at the same time
                self._write_pending(case, pending, 0)
                self._large.take(cost)
            try:
                pending.append((frame, self.model.queue.submit(prepared, self._deadline, wait=True), seconds))
                self._write_pending(case, pending, 0 if large else _AHEAD * self.model.ahead)
            finally:
                if large:
                    self._large.give(cost)
            start = time.perf_counter()
        self._write_pending(case, pending, 0)

    def _write_pending(self, case: ScanCase, pending: deque[tuple[Frame, Ticket, float]], most: int) -> None:
        """Write frames until at most so many wait for the engine."""
        while len(pending) > most:
            frame, ticket, seconds = pending.popleft()
            levels = ticket.map()
            self.spent.queue += ticket.waited
            self.spent.infer += ticket.seconds
            start = time.perf_counter()
            try:
                case.place(case.write(frame, levels, seconds + ticket.seconds, start), {})
            except _RequestTooLargeError:
                raise
            except (InputError, MemoryError) as error:
                case.fail(failure_reason(error, case.source.path), frame.number)
            self.spent.write += time.perf_counter() - start
