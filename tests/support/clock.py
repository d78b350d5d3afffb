"""Time that passes only when somebody sleeps or looks, in place of the module `time`: no test need wait, or be fast."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Begins at zero; `passed` is told the seconds of each sleep, `reads` counts how often anybody looked."""

    def __init__(self, passed: Callable[[float], object] = lambda seconds: None, *, today: float = 0.0) -> None:
        self.now = 0.0
        self.reads = 0
        self.today = today
        self._passed = passed

    def monotonic(self) -> float:
        self.reads += 1
        return self.now

    def time(self) -> float:
        return self.today

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._passed(seconds)


class LookedAtClock:
    """Begins at zero, and goes on by `step` seconds with each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def time(self) -> float:
        return self.now
