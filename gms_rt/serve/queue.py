"""One engine's queue. Prepared images come from any thread, probability maps go back to each.

The queue is bounded. What waits is taken in the order in which it came, as many images at once as the engine works on
in one inference; nobody waits for a batch to fill unless that was asked for. An image whose deadline is over is dropped
before the engine sees it. One thread for each of the engine's lanes runs it. This module knows nothing of HTTP: a
service, a DICOM node and a live stream are served by the same queue.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # before Python 3.11 another than the builtin
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, NativeError, line_from_error
from gms_rt.scan.segmenter import Segmenter
from gms_rt.serve.counters import Counters
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.refusals import BusyError, ClosedError


@dataclass(frozen=True)
class QueueSettings:
    """How one engine is fed."""

    name: str  # of the engine, in counters
    batch: int = 1  # images that one inference takes at most
    lanes: int = 1  # inferences at the same time
    depth: int = 64  # images that may wait
    wait: float = 0.0  # seconds to wait for a batch to fill


class Ticket(Future[NDArray[Any]]):
    """What one image will be: its probability map of 0-255 at network size, or the error."""

    def __init__(self, image: U8, deadline: Deadline) -> None:
        super().__init__()
        self.image: U8 | None = image
        self.deadline = deadline
        self.begun = time.perf_counter()
        self.waited = 0.0  # seconds in the queue
        self.seconds = 0.0  # its share of the inference

    def map(self) -> NDArray[Any]:
        """The map, once it is there; `LateError` when the deadline is over before."""
        try:
            return self.result(self.deadline.left + 0.05)  # the queue drops it at the deadline; that error tells more
        except FutureTimeout:
            self.deadline.check()
            raise


class EngineQueue:
    """The queue of one engine; `predictor` says what becomes of a batch. Close it: `close` ends what waits."""

    def __init__(self, predictor: Segmenter, settings: QueueSettings, counters: Counters) -> None:
        self._predictor = predictor
        self._settings = settings
        self._counters = counters
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._mean = 0.01  # seconds per image, a moving mean
        self._batched: Segmenter | None = None
        self._most, self._least = settings.batch, 1
        self.broken = ""  # why the engine is not to be trusted any more
        self._depth = counters.queue_images.labels(settings.name)
        self._sizes = counters.batch_images.labels(settings.name)
        self._late = counters.late_images.labels(settings.name)
        self._threads = [
            threading.Thread(target=self._run, name=f"engine-{settings.name}-{lane}", daemon=True)
            for lane in range(settings.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, image: U8, deadline: Deadline, *, wait: bool = False) -> Ticket:
        """Queue one prepared image. A full queue is a `BusyError`; with `wait` there is room or the deadline is over.

        Who was taken already, such as a request of many images, waits; who may come again later does not.
        """
        ticket = Ticket(image, deadline)
        with self._changed:
            if wait:
                self._changed.wait_for(self._has_room, deadline.left)
                if not self._has_room():
                    deadline.check()
            if self._closed:
                raise ClosedError("this engine's queue is closed")
            if len(self._waiting) >= self._settings.depth:
                raise BusyError("the engine's queue is full", self.retry_after())
            self._waiting.append(ticket)
            self._depth.set(len(self._waiting))
            self._changed.notify()
        return ticket

    def use_batches(self, batched: Segmenter, most: int, least: int) -> None:
        """From now on, `least` images and more that wait go together, at most so many, through this segmenter."""
        with self._changed:
            self._batched, self._most, self._least = batched, most, least

    def _has_room(self) -> bool:
        return self._closed or len(self._waiting) < self._settings.depth

    def retry_after(self) -> int:
        """Whole seconds after which what waits now will be done."""
        waiting = (len(self._waiting) + 1) * self._mean / self._settings.lanes
        return max(1, min(60, round(waiting + 0.5)))

    def close(self) -> None:
        """Work off what waits, then end; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while tickets := self._take():
            alive = [ticket for ticket in tickets if ticket.set_running_or_notify_cancel() and not self._drop(ticket)]
            if alive:
                self._infer(alive)

    def _take(self) -> list[Ticket]:
        """The next batch, waiting for its first image; nothing means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            most = self._most
            if self._settings.wait > 0 and not self._closed:
                self._changed.wait_for(lambda: len(self._waiting) >= most or self._closed, self._settings.wait)
            if self._batched is not None and len(self._waiting) < self._least:
                most = 1
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._depth.set(len(self._waiting))
            self._changed.notify_all()
            return taken

    def _drop(self, ticket: Ticket) -> bool:
        if not ticket.deadline.over:
            return False
        self._late.inc()
        try:
            ticket.deadline.check()
        except GmsError as error:
            ticket.set_exception(error)
        ticket.image = None
        return True

    def _infer(self, tickets: list[Ticket]) -> None:
        start = time.perf_counter()
        try:
            images = [ticket.image for ticket in tickets if ticket.image is not None]
            together = self._batched is not None and len(images) >= self._least
            maps = (self._batched if together and self._batched else self._predictor).predict(images)
        except BaseException as error:  # the thread goes on: whoever asked is told
            if isinstance(error, NativeError):
                self.broken = error.what
            wrapped = error if isinstance(error, GmsError) else NativeError(f"failed ({line_from_error(error)})")
            for ticket in tickets:
                ticket.image = None
                ticket.set_exception(wrapped)
            return
        seconds = time.perf_counter() - start
        share = seconds / len(tickets)
        self._mean += 0.1 * (share - self._mean)
        self._sizes.observe(len(tickets))
        for ticket, levels in zip(tickets, maps, strict=True):
            ticket.image = None
            ticket.waited, ticket.seconds = start - ticket.begun, share
            ticket.set_result(levels)
