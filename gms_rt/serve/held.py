"""How many bytes of strangers are held at the same time: taken before they are read, given back in the end."""

from __future__ import annotations

import threading
from types import TracebackType

from gms_rt.serve.counters import Counters
from gms_rt.serve.refusals import BusyError, LateError


class ByteBudget:
    """A number of bytes that all requests share."""

    def __init__(self, limit: int, counters: Counters) -> None:
        self._limit = limit
        self._used = 0
        self._gauge = counters.held
        self._lock = threading.Lock()

    def take(self, amount: int) -> None:
        """Take so many bytes, or raise `BusyError`."""
        with self._lock:
            if self._used + amount > self._limit:
                raise BusyError("as many bytes of requests are held as are allowed", 2)
            self._used += amount
            self._gauge.set(self._used)

    def give(self, amount: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used -= amount
            self._gauge.set(self._used)


class Held:
    """What one request holds of a budget. A context manager: it gives all back."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._amount = 0
        self._ended = False
        self._lock = threading.Lock()

    def take(self, amount: int) -> None:
        """Hold so many bytes more, or raise `BusyError`; `LateError` once all was given back."""
        with self._lock:
            if self._ended:
                raise LateError("nobody waits for the answer any more")
            self._budget.take(amount)
            self._amount += amount

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
            self._budget.give(self._amount)
            self._amount = 0
