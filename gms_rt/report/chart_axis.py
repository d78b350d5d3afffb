"""The scale of a chart: where values stand, and the round numbers along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LOG_SPAN = 6.0  # a wider spread than this is drawn on a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """A scale from values to percent of the plot."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value stands, 0 to 100."""
        if self.log:
            span = math.log(self.high / self.low)
            return 100 * math.log(max(value, self.low) / self.low) / span
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers along the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            inside = [t for t in found if self.low <= t <= self.high]
            return inside if len(inside) <= 7 else [t for t in inside if f"{t:e}"[0] == "1"]
        step = _step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, int(self.high / step + 1e-9) + 1)]


def axis_of_values(values: Sequence[float], *, zero: bool = False) -> Axis:
    """A scale with room around all values, logarithmic where they are far apart; `zero` begins it at 0."""
    low, high = min(values), max(values)
    if zero:
        return Axis(0.0, _step_up(high * 1.05))
    if low > 0 and high / low > _LOG_SPAN:
        return Axis(low / 1.25, high * 1.25, log=True)
    room = max((high - low) * 0.15, high * 0.02, 1e-6)
    return Axis(max(0.0, low - room), high + room)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def _step_up(value: float) -> float:
    step = _step(max(value, 1e-9) / 4)
    return math.ceil(value / step - 1e-9) * step
