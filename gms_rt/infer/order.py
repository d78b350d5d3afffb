"""Cases begun and completed by several threads, and told of in the order in which their sources came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from gms_rt.infer.case import ScanCase
from gms_rt.infer.sources import Source


class Order:
    """At most `ahead` cases are begun before the oldest that is not yet told of; `make` makes the case of a source."""

    def __init__(self, make: Callable[[int, Source], ScanCase], ahead: int) -> None:
        self._make = make
        self._ahead = ahead
        self._sources: Iterator[Source] = iter(())
        lock = threading.Lock()
        self._room = threading.Condition(lock)  # to begin another source
        self._next_is_there = threading.Condition(lock)
        self._complete: dict[int, ScanCase] = {}
        self._begun: dict[int, ScanCase] = {}
        self._fed = 0
        self._yielded = 0
        self._count: int | None = None
        self._error: BaseException | None = None

    def start(self, sources: Iterable[Source]) -> None:
        """Take the sources, which are read only as cases are begun."""
        self._sources = iter(sources)

    def begin(self, most: int) -> list[ScanCase]:
        """The next sources, waiting for room for the first only; none at the end of the run."""
        with self._room:
            while self._count is None and self._fed - self._yielded >= self._ahead:
                self._room.wait()
            cases: list[ScanCase] = []
            while self._count is None and len(cases) < min(most, self._ahead - self._fed + self._yielded + len(cases)):
                source = next(self._sources, None)
                if source is None:
                    self._count = self._fed
                    self._room.notify_all()
                    self._next_is_there.notify_all()
                    break
                case = self._begun[self._fed] = self._make(self._fed, source)
                self._fed += 1
                cases.append(case)
            return cases

    def complete(self, cases: Sequence[ScanCase]) -> None:
        """These cases can be told of."""
        with self._room:
            for case in cases:
                del self._begun[case.index]
                self._complete[case.index] = case
            if self._yielded in self._complete:
                self._next_is_there.notify()

    def next(self) -> list[ScanCase]:
        """Wait for the next case, and take all that can be told of after it; none at the end of the run.

        What ended the run early is raised here.
        """
        with self._room:
            while not (self._error is not None or self._yielded in self._complete or self._yielded == self._count):
                self._next_is_there.wait()
            if self._error is not None:
                raise self._error
            cases: list[ScanCase] = []
            while self._yielded in self._complete:
                cases.append(self._complete.pop(self._yielded))
                self._yielded += 1
            self._room.notify_all()
            return cases

    def cancel(self, error: BaseException | None) -> None:
        """Begin no more, and wake all who wait; the first error is kept for `next`."""
        with self._room:
            if self._error is None:
                self._error = error
            self._count = self._yielded if self._count is None else self._count
            self._room.notify_all()
            self._next_is_there.notify_all()

    def unfinished(self) -> list[ScanCase]:
        """Cases begun and not complete, once no thread works on them."""
        return list(self._begun.values())
