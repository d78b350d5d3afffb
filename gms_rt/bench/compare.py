"""Two benches of the same engines at two times: which differences are more than noise?

Each bench has the medians of its rounds. Both lists are resampled, which gives an interval for new / old; a
difference counts when that whole interval lies beyond the tolerance, so a noisy run cannot cry wolf.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from gms_rt.bench.results import BenchResult, Measured
from gms_rt.errors import UsageError
from gms_rt.statistics import bootstrap_ratio, median

TOLERANCE = 0.02
_MIN_ROUNDS = 3


@dataclass(frozen=True)
class EngineChange:
    """One engine, new against old; `verdict` is "regression", "improvement", "same" or "unclear"."""

    name: str
    old_ms: float
    new_ms: float
    ratio: float
    low: float
    high: float
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class BenchComparison:
    """All engines that both benches have, and what stands against comparing."""

    changes: tuple[EngineChange, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def regressions(self) -> tuple[EngineChange, ...]:
        """What became slower beyond noise."""
        return tuple(c for c in self.changes if c.verdict == "regression")


def compare_benches(old: BenchResult, new: BenchResult, *, tolerance: float = TOLERANCE) -> BenchComparison:
    """Compare two benches by engine name; they must be of the same device."""
    if not 0 <= tolerance < 1:
        raise UsageError(f"tolerance {tolerance} is not between 0 and 1", where="--tolerance")
    if old.device != new.device:
        raise UsageError(
            f"the old report is of {old.device}, the new one of {new.device}",
            where="bench compare",
            fix="compare reports of one device, on a Jetson of one power mode",
        )
    before, after = {m.name: m for m in old.measured}, {m.name: m for m in new.measured}
    both = [name for name in before if name in after]
    if not both:
        raise UsageError("the reports have no engine in common", where="bench compare")
    doubts = [f"old: {w}" for w in old.warnings] + [f"new: {w}" for w in new.warnings]
    doubts += _ceilings_moved(old, new)
    return BenchComparison(
        tuple(_change(before[name], after[name], tolerance) for name in both),
        tuple(n for n in before if n not in after),
        tuple(n for n in after if n not in before),
        tuple(doubts),
    )


def _change(old: Measured, new: Measured, tolerance: float) -> EngineChange:
    interval = bootstrap_ratio(new.rounds, old.rounds, median)
    ratio = statistics.median(new.rounds) / statistics.median(old.rounds)
    settings = [(m.batch, m.lanes, m.threads, m.size, m.execution, m.backend) for m in (old, new)]
    if settings[0] != settings[1]:
        verdict, why = "unclear", "batch, streams, threads, size or arithmetic differ"
    elif min(len(old.rounds), len(new.rounds)) < _MIN_ROUNDS:
        verdict, why = "unclear", f"fewer than {_MIN_ROUNDS} rounds"
    elif interval.low > 1 + tolerance:
        verdict, why = "regression", ""
    elif interval.high < 1 - tolerance:
        verdict, why = "improvement", ""
    elif abs(ratio - 1) > tolerance:
        verdict, why = "unclear", "the interval reaches into the tolerance: measure longer or on a quieter machine"
    else:
        verdict, why = "same", ""
    return EngineChange(
        new.name,
        statistics.median(old.rounds),
        statistics.median(new.rounds),
        ratio,
        interval.low,
        interval.high,
        verdict,
        why,
    )


def _ceilings_moved(old: BenchResult, new: BenchResult) -> list[str]:
    before = {c.name: c.value for c in old.roofline.ceilings}
    lines = []
    for ceiling in new.roofline.ceilings:
        was = before.get(ceiling.name)
        if was and abs(ceiling.value / was - 1) > 0.1:
            lines.append(
                f"the machine itself changed: {ceiling.name} was {was:.0f}, is {ceiling.value:.0f} {ceiling.unit}"
            )
    return lines
