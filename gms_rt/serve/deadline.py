"""Until when an answer is wanted, and whether anybody still waits for it."""

from __future__ import annotations

import threading
import time

from gms_rt.serve.refusals import LateError


class Deadline:
    """A moment of the monotonic clock; `cancel` brings it to now. Any thread may ask."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self.seconds = seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled.set()

    @property
    def over(self) -> bool:
        """Whether work on it would be for nobody."""
        return self._cancelled.is_set() or time.monotonic() >= self.at

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Raise `LateError` if it is over."""
        if self._cancelled.is_set():
            raise LateError("the client has gone")
        if time.monotonic() >= self.at:
            raise late_error(self.seconds)


def late_error(seconds: float) -> LateError:
    """For what could not be done within so many seconds."""
    return LateError(f"was not done within {seconds:g} s", fix="send fewer or smaller images, or raise --timeout")
