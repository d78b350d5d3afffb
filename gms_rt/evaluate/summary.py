"""Numbers over cases: mean, spread, median and a bootstrap interval, with a stated policy for empty masks.

Dice and IoU: both masks empty is 1, one empty is 0. HD95 of a miss or a false alarm has no distance, so the mean is
given twice: over the cases where both masks have pixels (`hd95`), and with the picture's diagonal for every miss and
false alarm (`hd95_penalised`). Every outcome is counted. Lesions are counted one by one: which share is found
(sensitivity), and how many false alarms there are per image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gms_rt import metrics
from gms_rt.statistics import bootstrap, bootstrap_share

if TYPE_CHECKING:
    from gms_rt.evaluate.case_result import CaseResult

POLICY = (
    "Dice and IoU: both empty 1, one empty 0. HD95: mean over cases where both masks have pixels (hd95), and with the "
    "picture's diagonal for misses and false alarms, 0 for both empty (hd95_penalised). Failed cases are counted in "
    "cases.failed and are in no mean."
)
DEFINITIONS = {
    "hd95": "the larger of the 95th percentiles of both surfaces' distances to the other (MONAI's; medpy's takes one "
    "percentile of both together)",
    "nsd": "share of both surfaces within nsd_tolerance of the other, in units of spacing at source size and in pixels "
    "at 224x224",
    "lesions": f"regions of the truth, corners touching, at source size; one is found if a region of the prediction "
    f"overlaps it with an IoU of at least {metrics.LESION_IOU:g}, matched one to one, the largest IoU first; other "
    "regions of the prediction are false alarms",
}
OUTCOMES = ("hit", "miss", "false alarm", "both empty", "failed")


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """The summary of an evaluation, plain values for JSON."""
    counted = Counter(result.outcome for result in results)
    good = [result for result in results if not result.error]
    return {
        "cases": {"all": len(results), **{name.replace(" ", "_"): counted[name] for name in OUTCOMES}},
        "empty_mask_policy": POLICY,
        "source_size": _summary_at(good, ""),
        "at_224": _summary_at(good, "_224"),
        "lesions": _lesions(good),
        "seconds_per_image_median": round(float(np.median([r.seconds for r in good])), 4) if good else None,
    }


def describe_values(values: Sequence[float]) -> dict[str, float | list[float]] | None:
    """Mean, standard deviation, median and the 95 % bootstrap interval of the mean.

    >>> describe_values([1.0, 1.0])
    {'mean': 1.0, 'std': 0.0, 'median': 1.0, 'interval95': [1.0, 1.0]}
    """
    if not values:
        return None
    array = np.asarray(values, np.float64)
    interval = bootstrap(array)
    return {
        "mean": round(float(array.mean()), 6),
        "std": round(float(array.std(ddof=1)) if len(array) > 1 else 0.0, 6),
        "median": round(float(np.median(array)), 6),
        "interval95": [round(interval.low, 6), round(interval.high, 6)],
    }


def _summary_at(results: Sequence[CaseResult], ending: str) -> dict[str, Any]:
    distances = [(r, float(getattr(r, f"hd95{ending}"))) for r in results]
    return {
        "dice": describe_values([float(getattr(r, f"dice{ending}")) for r in results]),
        "iou": describe_values([float(getattr(r, f"iou{ending}")) for r in results]),
        "nsd": describe_values([n for r in results if math.isfinite(n := float(getattr(r, f"nsd{ending}")))]),
        "hd95": describe_values([d for r, d in distances if math.isfinite(d) and r.outcome == "hit"]),
        "hd95_penalised": describe_values([d if math.isfinite(d) else _diagonal(r, ending) for r, d in distances]),
    }


def _lesions(results: Sequence[CaseResult]) -> dict[str, Any]:
    wholes, parts = [r.lesions for r in results], [r.lesions_found for r in results]
    sensitivity = None
    if sum(wholes):
        interval = bootstrap_share(parts, wholes)
        sensitivity = {
            "mean": round(sum(parts) / sum(wholes), 6),
            "interval95": [round(interval.low, 6), round(interval.high, 6)],
        }
    return {
        "all": sum(wholes),
        "found": sum(parts),
        "sensitivity": sensitivity,
        "false_alarms_per_image": describe_values([float(r.false_regions) for r in results]),
    }


def _diagonal(result: CaseResult, ending: str) -> float:
    # Misses are decided at source size; a lesion may also vanish at 224 alone, and is then penalised there.
    return math.hypot(224, 224) if ending else math.hypot(result.height, result.width)
