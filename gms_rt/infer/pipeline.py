"""Decode, infer and write at the same time, with bounded queues between; results come in the order of the sources.

Decoding and writing run in OpenCV, Pillow and the operating system, inference in the engine: all release the GIL.
A bad source becomes a failed row; an error of the engine or of the disk ends the run. What is in flight is bounded in
items and in bytes, so memory does not grow with the number of files.

Small images travel in groups, and what is written within a twentieth of a second is synced to the disk together, while
more is on its way; cases that are finished together are told of together. With an engine of a millisecond, threads that
wake each other for each image, and a sync for each file, would take longer than the work.
A case is told of, in the journal and to the caller, only after its files are in place and on the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gms_rt.artifacts import disk_errors_explained
from gms_rt.errors import GmsError, InputError, NoImageError
from gms_rt.infer.case import ScanCase
from gms_rt.infer.case_settings import CaseSettings, WrittenFrame
from gms_rt.infer.channel import Budget, Channel, Pace
from gms_rt.infer.failure import failure_reason
from gms_rt.infer.file_group import commit_parts
from gms_rt.infer.journal import Entry
from gms_rt.infer.order import Order
from gms_rt.infer.outbox import Item, Outbox
from gms_rt.infer.sources import Source
from gms_rt.scan.reader import fetch, fetch_series
from gms_rt.scan.series import SeriesFrames

_AHEAD = 256  # sources begun before the oldest unfinished one
_GROUP = 128  # frames whose files are synced together, at most
_GATHER = 0.05  # seconds that written files wait for others that are on their way, to be synced together
_BYTES_PER_PIXEL = 16  # image, probability as float, mask, overlay


@dataclass(frozen=True)
class _Written:
    """What is left of an item when its files are written: its pixels are gone."""

    case: ScanCase
    cost: int
    frame: WrittenFrame | None  # None where it failed


class Pipeline:
    """One run's threads.

    `find` looks a finished source up, `done` is called with the sources that were completed together, as soon as they
    are, `budget` bounds the bytes in flight; `bring`, where sources are elsewhere, makes each a file of this machine.
    """

    def __init__(
        self,
        settings: CaseSettings,
        *,
        workers: int,
        find: Callable[[str, str], Entry | None],
        done: Callable[[Sequence[ScanCase]], None],
        budget: int = 1 << 30,
        bring: Callable[[Source], Source] | None = None,
    ) -> None:
        info = settings.predictor.engine.runner.info
        self.lanes = max(1, info.lanes)
        self.workers = workers
        self._batch = 1 if settings.options.tile else max(1, info.batch)
        self._settings = settings
        self._find = find
        self._done = done
        self._bring = bring
        self._ready: Channel[Item] = Channel(max(8, 2 * self.lanes * self._batch))
        self._masks: Channel[Item] = Channel(max(8, 2 * workers))
        self._written: Channel[_Written] = Channel(_GROUP)
        self._budget = Budget(budget)
        self._order = Order(lambda number, source: ScanCase(number, source, settings), _AHEAD)
        self._turn = threading.Lock()  # of the one who syncs
        self._counting = threading.Lock()
        self._coming = 0  # frames sent on and not yet synced
        self.busy = {"decode": 0.0, "infer": 0.0, "write": 0.0, "sync": 0.0}

    @property
    def threads(self) -> dict[str, int]:
        """How many work in each stage."""
        return {"decode": self.workers, "infer": self.lanes, "write": self.workers, "sync": 1}

    def run(self, sources: Iterable[Source]) -> Iterator[list[ScanCase]]:
        """Segment every source; complete cases come in order, as many at once as there are."""
        self._order.start(sources)
        stages: list[tuple[Callable[[], None], int, Channel[Any] | None]] = [
            (self._decode, self.workers, self._ready),
            (self._infer, self.lanes, self._masks),
            (self._write, self.workers, self._written),
            (self._sync, self.workers, None),
        ]
        threads = []
        for work, count, target in stages:
            left = _Countdown(count, target)
            threads += [
                threading.Thread(target=self._guarded, args=(work, left), name=f"{work.__name__}-{i}")
                for i in range(count)
            ]
        for thread in threads:
            thread.start()
        try:
            while cases := self._order.next():
                yield cases
        finally:
            self._cancel(None)
            for thread in threads:
                thread.join()
            for case in self._order.unfinished():
                case.abandon()

    def _guarded(self, work: Callable[[], None], left: _Countdown) -> None:
        try:
            work()
        except BaseException as error:  # whatever ends a thread ends the run, in the caller's thread
            self._cancel(error)
        finally:
            left.ended()

    def _cancel(self, error: BaseException | None) -> None:
        self._order.cancel(error)
        for stopped in (self._ready, self._masks, self._written, self._budget):
            stopped.cancel()

    def _decode(self) -> None:
        pace = Pace()
        outbox = Outbox(self._ready, self._budget)
        while cases := self._order.begin(pace.items):
            start = time.perf_counter()
            ended: list[ScanCase] = []
            for case in cases:
                if not self._decode_case(case, outbox):
                    return
                if case.arrived():
                    ended.append(case)
            if not outbox.flush():
                return
            spent = time.perf_counter() - start - outbox.waited()
            self._finish(ended)
            pace.add(len(cases), spent)
            self._add_busy("decode", spent)

    def _decode_case(self, case: ScanCase, outbox: Outbox) -> bool:
        try:
            return self._frames(case, outbox)
        except NoImageError as error:
            case.skip(failure_reason(error, case.source.path))
        except (GmsError, OSError) as error:
            case.fail(failure_reason(error, case.source.path))
        except MemoryError:
            case.fail("needs more memory than there is")
        except Exception as error:  # what a foreign reader raises in its own way costs the file, not the run
            case.fail(f"cannot be read ({type(error).__name__}: {failure_reason(error, case.source.path)})")
        return True

    def _frames(self, case: ScanCase, outbox: Outbox) -> bool:
        """Decode a source and send its frames on; False when the run is cancelled."""
        start = time.perf_counter()
        if self._bring is not None:
            case.source = self._bring(case.source)
        fetched = fetch_series(case.source.paths) if case.source.series else fetch(case.source.path)
        case.digest = self._settings.digest(fetched.digest)
        earlier = self._find(case.source.name, case.digest)
        if earlier is not None:
            case.reuse(earlier.rows, earlier.files)
            return True
        reading = fetched.open(self._settings.options.max_pixels, self._settings.least_side)
        case.begin(fetched, reading.multi)
        frames = reading.frames
        while True:
            try:
                frame = next(frames, None)
            except (InputError, MemoryError) as error:
                if not isinstance(frames, SeriesFrames):
                    raise
                case.fail(failure_reason(error, frames.path), frames.number)  # one slice: the others go on
                continue
            if frame is None:
                return True
            prepared = self._settings.predictor.prepare(frame.image)
            cost = frame.size[0] * frame.size[1] * _BYTES_PER_PIXEL
            case.expect()
            if not outbox.put(Item(case, frame, prepared, cost, time.perf_counter() - start)):
                return False
            self._add_coming(1)
            start = time.perf_counter()

    def _infer(self) -> None:
        pace = Pace()
        while items := self._ready.get(self._batch * pace.items):
            start = begin = time.perf_counter()
            # One batch a call: with more, the engine would share a call out to lanes that are used from here already.
            for first in range(0, len(items), self._batch):
                batch = items[first : first + self._batch]
                maps = self._settings.predictor.predict([item.prepared for item in batch])
                seconds = time.perf_counter() - start
                start += seconds
                for item, levels in zip(batch, maps, strict=True):
                    item.levels = levels
                    item.seconds += seconds / len(batch)
            if not self._masks.put(*items):
                return
            pace.add(-(-len(items) // self._batch), start - begin)
            self._add_busy("infer", start - begin)

    def _write(self) -> None:
        pace = Pace()
        while items := self._masks.get(pace.items):
            begin = start = time.perf_counter()
            written = []
            for item in items:
                written.append(_Written(item.case, item.cost, self._write_frame(item, start)))
                start = time.perf_counter()
            pace.add(len(items), start - begin)
            self._add_busy("write", start - begin)
            del items, item  # their pixels need not wait for the disk
            if not self._written.put(*written):
                return

    def _write_frame(self, item: Item, start: float) -> WrittenFrame | None:
        assert item.levels is not None
        try:
            return item.case.write(item.frame, item.levels, item.seconds, start)
        except (InputError, MemoryError) as error:
            item.case.fail(failure_reason(error, item.case.source.path), item.frame.number)
            return None

    def _sync(self) -> None:
        """Put what is written in its place, and complete the cases whose last frame that is."""
        while True:
            with self._turn:  # one at a time: what is written meanwhile makes the next group
                self._written.gather(_GROUP, lambda: self._coming, _GATHER)
                items = self._written.get(_GROUP)
                if not items:
                    return
                start = time.perf_counter()
                parts = [part for item in items if item.frame for part in item.frame.parts.values()]
                try:
                    with disk_errors_explained(self._settings.out.root):
                        failed = commit_parts(parts)
                except OSError as error:
                    reason = f"the disk does not keep what is written ({error.strerror or error})"
                    raise GmsError(reason, where=self._settings.out.root) from error
                self._add_busy("sync", time.perf_counter() - start)
                self._add_coming(-len(items))
            ended = []
            for item in items:
                if item.frame is not None:
                    item.case.place(item.frame, failed)
                if item.case.arrived():
                    ended.append(item.case)
            self._budget.give(sum(item.cost for item in items))
            self._finish(ended)

    def _finish(self, cases: Sequence[ScanCase]) -> None:
        """Complete cases whose frames are all in place."""
        if not cases:
            return
        for case in cases:
            case.finish()
        self._done(cases)
        self._order.complete(cases)

    def _add_coming(self, frames: int) -> None:
        with self._counting:
            self._coming += frames

    def _add_busy(self, stage: str, seconds: float) -> None:
        with self._counting:
            self.busy[stage] += seconds


class _Countdown:
    """Closes the next stage's channel when the last thread of a stage has ended."""

    def __init__(self, count: int, target: Channel[Any] | None) -> None:
        self._count = count
        self._target = target
        self._lock = threading.Lock()

    def ended(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._target is not None:
                self._target.close()
