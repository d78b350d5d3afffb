"""A request to end (Ctrl-C, SIGTERM, SIGHUP) ends a training between two steps, after it has been saved; a second one
ends it at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gms_rt.interrupts import INTERRUPTS, handle_signals


class StopRequest:
    """Whether somebody wants the work to stop."""

    def __init__(self) -> None:
        self.made = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What the signals call."""
        if self.made:
            raise KeyboardInterrupt
        self.made = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collect requests to end instead of ending at once; outside the main thread nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    with handle_signals(INTERRUPTS, request.handle):
        yield request
