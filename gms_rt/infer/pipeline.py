"""Decode, infer and write at the same time, with bounded queues between; results come in the order of the sources.

Decoding and writing run in OpenCV, Pillow and the operating system, inference in the engine: all release the GIL.
A bad source becomes a failed row; an error of the engine or of the disk ends the run. What is in flight is bounded in
items and in bytes, so memory does not grow with the number of files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, InputError, NoImageError
from gms_rt.infer.case import CaseSettings, ScanCase, failure_reason
from gms_rt.infer.channel import Budget, Channel
from gms_rt.infer.journal import Entry
from gms_rt.infer.sources import Source
from gms_rt.scan import Frame
from gms_rt.scan.reader import fetch, fetch_series
from gms_rt.scan.series import SeriesFrames

_AHEAD = 64  # sources begun before the oldest unfinished one
_BYTES_PER_PIXEL = 16  # image, probability as float, mask, overlay


@dataclass
class _Item:
    case: ScanCase
    frame: Frame
    prepared: U8
    cost: int
    seconds: float
    levels: NDArray[Any] | None = None


class Pipeline:
    """One run's threads.

    `find` looks a finished source up, `done` is called as soon as a source is complete, `budget` bounds the bytes in
    flight.
    """

    def __init__(
        self,
        settings: CaseSettings,
        *,
        workers: int,
        find: Callable[[str, str], Entry | None],
        done: Callable[[ScanCase], None],
        budget: int = 1 << 30,
    ) -> None:
        info = settings.predictor.engine.runner.info
        self.lanes = max(1, info.lanes)
        self.workers = workers
        self._batch = 1 if settings.options.tile else max(1, info.batch)
        self._settings = settings
        self._find = find
        self._done = done
        self._todo: Channel[ScanCase] = Channel(workers)
        self._ready: Channel[_Item] = Channel(2 * self.lanes * self._batch)
        self._masks: Channel[_Item] = Channel(2 * workers)
        self._budget = Budget(budget)
        self._state = threading.Condition()
        self._complete: dict[int, ScanCase] = {}
        self._begun: dict[int, ScanCase] = {}
        self._fed = 0
        self._yielded = 0
        self._count: int | None = None
        self._error: BaseException | None = None
        self.busy = {"decode": 0.0, "infer": 0.0, "write": 0.0}

    def run(self, sources: Iterable[Source]) -> Iterator[ScanCase]:
        """Segment every source; complete cases come in order."""
        stages: list[tuple[Callable[[], None], int, Channel[Any] | None]] = [
            (self._decode, self.workers, self._ready),
            (self._infer, self.lanes, self._masks),
            (self._write, self.workers, None),
        ]
        threads = [threading.Thread(target=self._guarded, args=(lambda: self._feed(sources),), name="feed")]
        for work, count, target in stages:
            left = _Countdown(count, target)
            threads += [
                threading.Thread(target=self._guarded, args=(work, left), name=f"{work.__name__}-{i}")
                for i in range(count)
            ]
        for thread in threads:
            thread.start()
        try:
            while (case := self._next()) is not None:
                yield case
        finally:
            self._cancel(None)
            for thread in threads:
                thread.join()
            for case in self._begun.values():
                case.abandon()

    def _next(self) -> ScanCase | None:
        with self._state:
            self._state.wait_for(
                lambda: self._error is not None or self._yielded in self._complete or self._yielded == self._count
            )
            if self._error is not None:
                raise self._error
            if self._yielded == self._count:
                return None
            case = self._complete.pop(self._yielded)
            self._yielded += 1
            self._state.notify_all()
            return case

    def _guarded(self, work: Callable[[], None], left: _Countdown | None = None) -> None:
        try:
            work()
        except BaseException as error:  # whatever ends a thread ends the run, in the caller's thread
            self._cancel(error)
        finally:
            if left is not None:
                left.ended()

    def _cancel(self, error: BaseException | None) -> None:
        with self._state:
            if self._error is None:
                self._error = error
            self._count = self._yielded if self._count is None else self._count
            self._state.notify_all()
        for stopped in (self._todo, self._ready, self._masks, self._budget):
            stopped.cancel()

    def _feed(self, sources: Iterable[Source]) -> None:
        count = 0
        for source in sources:
            with self._state:
                self._state.wait_for(lambda: self._count is not None or self._fed - self._yielded < _AHEAD)
                if self._count is not None:
                    return
                case = self._begun[count] = ScanCase(count, source, self._settings)
                count = self._fed = count + 1
            if not self._todo.put(case):
                return
        with self._state:
            self._count = count
            self._state.notify_all()
        self._todo.close()

    def _decode(self) -> None:
        while batch := self._todo.get():
            case = batch[0]
            try:
                if not self._frames(case):
                    return
            except NoImageError as error:
                case.skip(failure_reason(error, case.source.path))
            except (GmsError, OSError) as error:
                case.fail(failure_reason(error, case.source.path))
            except MemoryError:
                case.fail("needs more memory than there is")
            except Exception as error:  # what a foreign reader raises in its own way costs the file, not the run
                case.fail(f"cannot be read ({type(error).__name__}: {failure_reason(error, case.source.path)})")
            self._settle(case)

    def _frames(self, case: ScanCase) -> bool:
        """Decode a source and send its frames on; False when the run is cancelled."""
        start = time.perf_counter()
        fetched = fetch_series(case.source.paths) if case.source.series else fetch(case.source.path)
        case.digest = self._settings.digest(fetched.digest)
        earlier = self._find(case.source.name, case.digest)
        if earlier is not None:
            case.reuse(earlier.rows, earlier.files)
            return True
        reading = fetched.open(self._settings.options.max_pixels)
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
            seconds = time.perf_counter() - start
            self._add_busy("decode", seconds)
            cost = frame.image.shape[0] * frame.image.shape[1] * _BYTES_PER_PIXEL
            if not self._budget.take(cost):
                return False
            case.expect()
            if not self._ready.put(_Item(case, frame, prepared, cost, seconds)):
                return False
            start = time.perf_counter()

    def _infer(self) -> None:
        while items := self._ready.get(self._batch):
            start = time.perf_counter()
            maps = self._settings.predictor.predict([item.prepared for item in items])
            seconds = time.perf_counter() - start
            self._add_busy("infer", seconds)
            for item, levels in zip(items, maps, strict=True):
                item.levels = levels
                item.seconds += seconds / len(items)
                if not self._masks.put(item):
                    return

    def _write(self) -> None:
        while items := self._masks.get():
            item = items[0]
            start = time.perf_counter()
            assert item.levels is not None
            try:
                item.case.write(item.frame, item.levels, item.seconds, start)
            except (InputError, MemoryError) as error:
                item.case.fail(failure_reason(error, item.case.source.path), item.frame.number)
            self._budget.give(item.cost)
            self._settle(item.case)
            self._add_busy("write", time.perf_counter() - start)

    def _settle(self, case: ScanCase) -> None:
        if not case.arrived():
            return
        case.finish()
        self._done(case)
        with self._state:
            del self._begun[case.index]
            self._complete[case.index] = case
            self._state.notify_all()

    def _add_busy(self, stage: str, seconds: float) -> None:
        with self._state:
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
