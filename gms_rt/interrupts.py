"""Which signals ask a program to end, and handling them for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# A service manager's request, and the terminal that is gone; what Ctrl-C sends is the third.
END_REQUESTS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTS = (signal.SIGINT, *END_REQUESTS)


def set_handlers(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Handle these signals and return what handled them before. An ignored SIGHUP stays so: `nohup` asks for that."""
    before = {}
    for number in numbers:
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
            continue
        earlier = signal.signal(number, handler)
        if earlier is not None:  # None: a handler that is not Python's, which Python cannot put back
            before[number] = earlier
    return before


@contextmanager
def handle_signals(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle these signals in this block; main thread only."""
    before = set_handlers(numbers, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
