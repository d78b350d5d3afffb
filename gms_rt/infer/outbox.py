"""What a thread has decoded and not yet sent on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.infer.case import ScanCase
from gms_rt.infer.channel import Budget, Channel
from gms_rt.scan import Frame


@dataclass
class Item:
    """A frame on its way from file to mask; `cost` is its bytes in flight, `seconds` its work until now."""

    case: ScanCase
    frame: Frame
    prepared: U8
    cost: int
    seconds: float
    levels: NDArray[Any] | None = None


class Outbox:
    """Sends frames on in groups, where decoding is fast."""

    _SECONDS = 0.01

    def __init__(self, target: Channel[Item], budget: Budget) -> None:
        self._target = target
        self._budget = budget
        self._items: list[Item] = []
        self._since = 0.0
        self._waited = 0.0

    def put(self, item: Item) -> bool:
        """Send an item, soon; False when the run is cancelled."""
        # Nobody gives back what lies here, so nothing lies here while the budget is waited for.
        if not self._budget.take_now(item.cost):
            if not self.flush():
                return False
            start = time.perf_counter()
            if not self._budget.take(item.cost):
                return False
            self._waited += time.perf_counter() - start
        if not self._items:
            self._since = time.perf_counter()
        self._items.append(item)
        now = time.perf_counter()
        return (item.seconds < self._SECONDS / 4 and now - self._since < self._SECONDS) or self.flush()

    def flush(self) -> bool:
        """Send what is here on; False when the run is cancelled."""
        items, self._items = self._items, []
        start = time.perf_counter()
        sent = self._target.put(*items)
        self._waited += time.perf_counter() - start
        return sent

    def waited(self) -> float:
        """Seconds spent waiting for others since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited
