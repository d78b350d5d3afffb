"""Scans and labels that a client sends first and asks about later. Held in memory, for a while, within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gms_rt.serve.intake import SentFile
from gms_rt.serve.refusals import BusyError, UnknownError

_ENTRY = 16 << 10  # bytes that a file counts for at least: a million of empty ones would fill the memory too


@dataclass
class ShelfItem:
    """Files under one name, and labels of them by tag."""

    files: list[SentFile]
    labels: dict[str, SentFile] = field(default_factory=dict)
    used: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all of them, with what names cost."""
        files = (*self.files, *self.labels.values())
        return sum(len(each.data) + len(each.name) + _ENTRY for each in files) + sum(map(len, self.labels))


class Shelf:
    """Items by name. One that nobody has asked for is gone after `seconds`; what does not fit is refused."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._items: dict[str, ShelfItem] = {}
        self._lock = threading.Lock()

    def put(self, name: str, files: list[SentFile]) -> None:
        """Lay files there; what had the name before is replaced."""
        item = ShelfItem(files, used=self._clock())
        with self._lock:
            self._forget_old()
            self._check_room(item.size + len(name), name)
            self._items[name] = item

    def add_label(self, name: str, tag: str, label: SentFile) -> None:
        """Lay a label to the item of this name."""
        item = self.get(name)
        with self._lock:
            self._check_room(ShelfItem([label]).size + len(tag), "")
            item.labels[tag] = label

    def get(self, name: str) -> ShelfItem:
        """The item of this name, which stays for longer by that; `UnknownError` where there is none."""
        with self._lock:
            self._forget_old()
            item = self._items.get(name)
            if item is None:
                raise UnknownError("nothing is held under this name", fix="send it again: scans are held for a while")
            item.used = self._clock()
            return item

    def remove(self, name: str) -> None:
        """Forget an item."""
        with self._lock:
            self._items.pop(name, None)

    def items(self) -> dict[str, ShelfItem]:
        """All items by name."""
        with self._lock:
            self._forget_old()
            return dict(self._items)

    def _forget_old(self) -> None:
        oldest = self._clock() - self._seconds
        for name in [name for name, item in self._items.items() if item.used < oldest]:
            del self._items[name]

    def _check_room(self, size: int, replaced: str) -> None:
        held = sum(item.size + len(name) for name, item in self._items.items() if name != replaced)
        if held + size > self._most:
            raise BusyError("as many bytes of scans are held as are allowed", 60)
