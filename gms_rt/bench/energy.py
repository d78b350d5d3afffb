"""Energy over timed rounds: what every meter is, and the account of what one engine or peer draws.

The draw of the whole package, idle included, is counted: that is what the battery or the socket pays. The draw while
nothing runs is reported with it. A source that is absent, or falls silent, says why. `meters` chooses the source.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gms_rt.bench.results import Energy

IDLE_SECONDS = 1.0
_FIRST_SECONDS = 3.0

Samples = list[tuple[float, float]]


class Meter(ABC):
    """Measures joules between `start` and `stop`, one span after the other; `close` lets its source go.

    `trouble` says why a span had no reading, and is empty as long as all had one.
    """

    source = ""

    def __init__(self) -> None:
        self.trouble = ""
        self._began = 0.0

    def start(self) -> None:
        """Begin a span."""
        self._begin()
        self._began = time.monotonic()

    def stop(self) -> tuple[float, float]:
        """End a span: its joules and seconds, zero where there was no reading."""
        end = time.monotonic()
        joules = self._joules(self._began, end)
        if joules is None:
            self.trouble = self.trouble or "no reading"
            return 0.0, 0.0
        return joules, end - self._began

    def close(self) -> None:
        """Let the source go; a second call does nothing."""
        return

    def _begin(self) -> None:
        """Make ready for a span."""
        return

    @abstractmethod
    def _joules(self, start: float, end: float) -> float | None: ...


@dataclass
class EnergyAccount:
    """What one engine or peer draws from the meter that all share."""

    meter: Meter | None
    why: str = ""
    joules: float = 0.0
    seconds: float = 0.0

    @contextlib.contextmanager
    def span(self) -> Iterator[None]:
        """Book what is drawn within."""
        if self.meter is None:
            yield
            return
        self.meter.start()
        try:
            yield
        finally:
            joules, seconds = self.meter.stop()
            self.joules += joules
            self.seconds += seconds

    @property
    def watts(self) -> float | None:
        """The mean draw, or None without a reading."""
        return self.joules / self.seconds if self.joules > 0 and self.seconds > 0 else None

    def energy(self, images: int, idle: EnergyAccount | None = None) -> Energy:
        """Joules per image, and the draw while nothing ran; not given if a span had no reading."""
        if self.meter is None:
            return Energy(None, None, "", self.why)
        if self.meter.trouble or self.watts is None or images < 1:
            why = self.meter.trouble or "no reading"
            return Energy(None, None, self.meter.source, f"{self.meter.source}: {why}")
        still = idle.watts if idle else None
        why = "" if still is not None else "idle draw: no reading"
        return Energy(self.joules / images, self.watts, self.meter.source, why, still)


class PowerMeter(Meter):
    """Integrates samples of the draw, which a thread collects from the first span on."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: Samples = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._collect, daemon=True)
            self._thread.start()
            # The first reading takes a moment; without it the first span would begin in the dark.
            deadline = time.monotonic() + _FIRST_SECONDS
            while not self.samples and self._thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.005)

    def _joules(self, start: float, end: float) -> float | None:
        return integral(self.samples, start, end)

    def _note(self, watts: float) -> None:
        self.samples.append((time.monotonic(), watts))

    @abstractmethod
    def _collect(self) -> None: ...


def integral(samples: Sequence[tuple[float, float]], start: float, end: float) -> float | None:
    """Joules from `start` to `end` of a draw that goes straight from sample to sample; None without a sample near.

    >>> integral([(0.0, 4.0), (1.0, 6.0), (2.0, 6.0)], 0.5, 2.5)
    11.75
    """
    # A sample tells of the time around it, not of a time long past.
    near = [s for s in samples if start - 1.0 <= s[0] <= end + 1.0]
    if not near or end <= start:
        return None

    def at(moment: float) -> float:
        before = [s for s in near if s[0] <= moment]
        after = [s for s in near if s[0] > moment]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (t0, w0), (t1, w1) = before[-1], after[0]
        return w0 + (w1 - w0) * (moment - t0) / (t1 - t0)

    points = [(start, at(start)), *(s for s in near if start < s[0] < end), (end, at(end))]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
