"""Bounded queues between threads that can be closed (no more items come) or cancelled (no more are wanted)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of at most `size` items; `put` waits for room, `get` for items.

    Items travel in groups where they come fast: a thread that is woken for each of them costs more than their work.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)
        self._gathered = threading.Condition(lock)
        self._wanted = 0  # items for which someone waits in `gather`; 0: nobody
        self._closed = False
        self._cancelled = False

    def put(self, *items: T) -> bool:
        """Add items in order, each as soon as there is room for it; False when the channel is cancelled."""
        left = deque(items)
        with self._filled:
            while left:
                while len(self._items) >= self._size and not self._cancelled:
                    self._emptied.wait()
                if self._cancelled:
                    return False
                while left and len(self._items) < self._size:
                    self._items.append(left.popleft())
                self._filled.notify()
                if 0 < self._wanted <= len(self._items):
                    self._gathered.notify()
            return not self._cancelled

    def gather(self, most: int, coming: Callable[[], int], seconds: float) -> None:
        """Wait until there are as many items as `coming` says will be here, or `most`, but so many seconds at most.

        For one caller at a time, who takes them with `get`.
        """
        end = time.monotonic() + seconds
        with self._gathered:
            while not (self._closed or self._cancelled) and (left := end - time.monotonic()) > 0:
                self._wanted = min(most, self._size, coming())
                if len(self._items) >= self._wanted:
                    break
                self._gathered.wait(left)
            self._wanted = 0

    def get(self, most: int = 1) -> list[T]:
        """At least one item and at most `most`, waiting for the first only; an empty list means the end."""
        with self._filled:
            while not (self._items or self._closed or self._cancelled):
                self._filled.wait()
            if self._cancelled:
                return []
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            if self._items:
                self._filled.notify()
            if len(self._items) <= self._size // 2:  # who waits for room finds room for several items
                self._emptied.notify_all()
            return taken

    def close(self) -> None:
        """Say that nothing more will be put."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._gathered.notify_all()

    def cancel(self) -> None:
        """Drop everything and wake all who wait."""
        with self._filled:
            self._cancelled = True
            self._items.clear()
            for waited in (self._filled, self._emptied, self._gathered):
                waited.notify_all()


class Budget:
    """A number of bytes shared by all frames in flight. A frame larger than the whole budget is let through alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._cancelled = False
        self._changed = threading.Condition()

    def take_now(self, amount: int) -> bool:
        """Take it if there is room without waiting; False where there is none, or when cancelled."""
        with self._changed:
            if self._cancelled or (self._used and self._used + amount > self._limit):
                return False
            self._used += amount
            return True

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


class Pace:
    """How many items a thread takes at once: what it finishes in about ten milliseconds, at least one."""

    _SECONDS = 0.01
    _MOST = 8

    def __init__(self) -> None:
        self.items = 1

    def add(self, items: int, seconds: float) -> None:
        """Learn from a group: it took so long. The number grows step by step, and falls at once."""
        fitting = int(items * self._SECONDS / seconds) if seconds > 0 else self._MOST
        self.items = max(1, min(fitting, 2 * self.items, self._MOST))
