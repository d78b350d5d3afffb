"""Bounded queues between threads that can be closed (no more items come) or cancelled (no more are wanted)."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of at most `size` items; `put` waits for room, `get` for items."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cancelled = False

    def put(self, item: T) -> bool:
        """Add an item; False when the channel is cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._cancelled)
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, most: int = 1) -> list[T]:
        """At least one item and at most `most`, waiting for the first only; an empty list means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._cancelled)
            if self._cancelled:
                return []
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Say that nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop everything and wake all who wait."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()


class Budget:
    """A number of bytes shared by all frames in flight. A frame larger than the whole budget is let through alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._cancelled = False
        self._changed = threading.Condition()

    def take(self, amount: int) -> bool:
        """Wait for room; False when cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= self._limit or self._cancelled)
            if self._cancelled:
                return False
            self._used += amount
            return True

    def give(self, amount: int) -> None:
        """Return what was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wake all who wait."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
