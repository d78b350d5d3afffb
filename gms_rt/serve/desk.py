"""How many requests a service takes, the threads that work on them, and an end at which nothing is lost.

A request is a call without arguments. The desk takes it at once or refuses it at once; what it took is answered: with
its result, its error, or a `LateError` where the deadline was over before a thread came to it. This module knows
nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from gms_rt.errors import GmsError
from gms_rt.serve.counters import Counters
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.refusals import BusyError, ClosedError, RefusedError, forget_frames

T = TypeVar("T")


@dataclass
class _Order:
    work: Callable[[], Any]
    deadline: Deadline
    result: Future[Any]


class Desk:
    """A bounded number of requests, worked on by a bounded number of threads in the order in which they came."""

    def __init__(self, requests: int, workers: int, counters: Counters) -> None:
        self._most = requests
        self._counters = counters
        self._waiting: deque[_Order] = deque()
        self._running = 0
        self._closed = False
        self._mean = 0.05  # seconds per request, a moving mean
        self._changed = threading.Condition()
        self._workers = workers
        self._threads = [
            threading.Thread(target=self._run, name=f"desk-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def check_room(self) -> None:
        """Raise what `take` would raise now, so that a request can be refused before its body is read."""
        if self._closed:
            raise ClosedError("the service is ending", fix="ask another, or come back when it is up again")
        if len(self._waiting) + self._running >= self._most:
            raise BusyError(f"{self._most} requests are being worked on", self.retry_after())

    def take(self, work: Callable[[], T], deadline: Deadline) -> Future[T]:
        """Take a request, or raise `BusyError` or `ClosedError`. What is taken is answered."""
        result: Future[T] = Future()
        with self._changed:
            self.check_room()
            self._waiting.append(_Order(work, deadline, result))
            self._count()
            self._changed.notify()
        return result

    def retry_after(self) -> int:
        """Whole seconds after which there will be room again, as far as the last requests tell."""
        seconds = (len(self._waiting) + self._running) * self._mean / self._workers
        return max(1, min(60, round(seconds + 0.5)))

    def close(self) -> None:
        """Take nothing more; what was taken is still answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> None:
        """Close, and wait until everything that was taken is answered."""
        self.close()
        for thread in self._threads:
            thread.join()

    def _count(self) -> None:
        self._counters.waiting.set(len(self._waiting))
        self._counters.running.set(self._running)

    def _next(self) -> _Order | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._running += 1
            order = self._waiting.popleft()
            self._count()
            return order

    def _run(self) -> None:
        while (order := self._next()) is not None:
            self._work(order)
            del order  # what it holds is not held until the next one comes

    def _work(self, order: _Order) -> None:
        start = time.monotonic()
        late = True
        if not order.result.set_running_or_notify_cancel():  # whoever asked has cancelled it
            self._ended(start, late)
            return
        try:
            order.deadline.check()
            late = False
            found = order.work()
        except BaseException as error:  # whoever asked is told; the thread goes on
            if isinstance(error, GmsError):  # of others it is told where they came from
                forget_frames(error)
            self._ended(start, late or isinstance(error, RefusedError))
            order.result.set_exception(error)
        else:
            self._ended(start, late)
            order.result.set_result(found)

    def _ended(self, start: float, late: bool) -> None:
        with self._changed:
            self._running -= 1
            if not late:  # what was dropped says nothing of how long work takes
                self._mean += 0.1 * (time.monotonic() - start - self._mean)
            self._count()
