"""Two evaluations of the same cases, paired: the difference with an interval, Wilcoxon's p, Bland-Altman on area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gms_rt.arrays import F64
from gms_rt.errors import UsageError
from gms_rt.evaluate.case_result import CaseResult
from gms_rt.statistics import bootstrap

_EXACT_UP_TO = 25


@dataclass(frozen=True)
class Wilcoxon:
    """Signed-rank test of paired differences, two-sided; `method` is exact, normal, or none (nothing differs)."""

    statistic: float
    p: float
    pairs: int
    method: str


def compare_evaluations(first: Sequence[CaseResult], second: Sequence[CaseResult]) -> dict[str, Any]:
    """Second minus first, over the cases that both have, as JSON values."""
    theirs = {result.name: result for result in second if not result.error}
    pairs = [(a, theirs[a.name]) for a in first if not a.error and a.name in theirs]
    if not pairs:
        raise UsageError("the two evaluations share no case", fix="evaluate both on the same data and split")
    only = (len(first) - len(pairs), len(second) - len(pairs))
    found: dict[str, Any] = {"pairs": len(pairs), "only_in_first": only[0], "only_in_second": only[1]}
    for name in ("dice", "iou", "hd95", "nsd", "dice_224", "iou_224", "hd95_224", "nsd_224"):
        values = np.array([[getattr(a, name), getattr(b, name)] for a, b in pairs], np.float64)
        found[name] = _difference(values[np.isfinite(values).all(axis=1)])
    areas = np.array([[a.predicted_pixels, b.predicted_pixels] for a, b in pairs], np.float64)
    found["area"] = bland_altman(areas[:, 0], areas[:, 1])
    return found


def bland_altman(first: F64, second: F64) -> dict[str, float]:
    """Bias and 95 % limits of agreement of second minus first, in pixels.

    >>> bland_altman(np.array([10.0, 20.0]), np.array([12.0, 22.0]))
    {'bias': 2.0, 'low': 2.0, 'high': 2.0}
    """
    differences = second - first
    spread = 1.96 * float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    bias = float(differences.mean())
    return {"bias": round(bias, 3), "low": round(bias - spread, 3), "high": round(bias + spread, 3)}


def wilcoxon(differences: F64) -> Wilcoxon:
    """Wilcoxon's signed-rank test: exact for up to 25 differences without ties, else the normal approximation.

    >>> wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).p
    0.0625
    """
    values = differences[differences != 0]
    count = len(values)
    if count == 0:
        return Wilcoxon(0.0, 1.0, 0, "none")
    size = np.abs(values)
    unique, inverse, ties = np.unique(size, return_inverse=True, return_counts=True)
    ends = np.cumsum(ties)
    ranks = ((ends - ties + 1 + ends) / 2)[inverse]
    above = float(ranks[values > 0].sum())
    statistic = min(above, count * (count + 1) / 2 - above)
    if count <= _EXACT_UP_TO and len(unique) == count:
        return Wilcoxon(statistic, _exact_p(int(statistic), count), count, "exact")
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - float((ties**3 - ties).sum()) / 48
    z = (statistic - mean) / math.sqrt(variance)
    return Wilcoxon(statistic, min(1.0, math.erfc(abs(z) / math.sqrt(2))), count, "normal")


def _exact_p(statistic: int, count: int) -> float:
    """Of all 2^count choices of signs, the share that is as extreme."""
    ways = np.zeros(count * (count + 1) // 2 + 1, np.float64)
    ways[0] = 1
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
    return min(1.0, 2 * float(ways[: statistic + 1].sum()) / 2.0**count)


def _difference(values: F64) -> dict[str, Any] | None:
    if not len(values):
        return None
    differences = values[:, 1] - values[:, 0]
    interval, test = bootstrap(differences), wilcoxon(differences)
    return {
        "pairs": len(values),
        "first": round(float(values[:, 0].mean()), 6),
        "second": round(float(values[:, 1].mean()), 6),
        "difference": round(float(differences.mean()), 6),
        "interval95": [round(interval.low, 6), round(interval.high, 6)],
        "wilcoxon_p": test.p,
        "wilcoxon_method": test.method,
    }
