"""From a histogram of magnitudes to the largest magnitude that INT8 should still represent.

Every calibrator answers the same question: where to clip. `minmax` does not clip; `percentile` drops a fixed share of
values; `entropy` keeps the distribution (smallest Kullback-Leibler divergence); `mse` keeps the values (smallest
squared error of clipping and rounding together).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F64
from gms_rt.errors import UsageError
from gms_rt.precision.int8 import INT8_LEVELS, Int8Values
from gms_rt.precision.ranges import Histogram


def clip(histogram: Histogram, method: str) -> float:
    """The clipping magnitude by a method's name; `percentile` takes a figure: `percentile:99.99`."""
    name, _, figure = method.partition(":")
    if name not in METHODS or (figure and name != "percentile"):
        raise UsageError(f"unknown calibrator '{method}'", where="--calibrator", fix=f"use {', '.join(METHODS)}")
    if histogram.top <= 0 or not histogram.counts.any():
        return max(histogram.top, 1e-6)  # a tensor that is always zero: any scale will do
    if name == "percentile":
        return percentile_clip(histogram, _share(figure or "99.999", method))
    return METHODS[name](histogram)


def clips_from_histograms(histograms: Mapping[str, Histogram], method: str) -> dict[str, float]:
    """The clipping magnitude of each tensor."""
    return {name: clip(histogram, method) for name, histogram in histograms.items()}


def int8_values(
    histograms: Mapping[str, Histogram], method: str, rounded: Mapping[str, NDArray[np.int8]]
) -> Int8Values:
    """What an INT8 graph takes from the histograms of its tensors, with weights that were rounded together."""
    return Int8Values(clips_from_histograms(histograms, method), spans_from_histograms(histograms), rounded)


def spans_from_histograms(histograms: Mapping[str, Histogram]) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each tensor where they are known."""
    return {name: histogram.span for name, histogram in histograms.items() if histogram.span is not None}


def minmax_clip(histogram: Histogram) -> float:
    """The largest magnitude seen."""
    return histogram.top


def percentile_clip(histogram: Histogram, share: float = 99.999) -> float:
    """The magnitude that `share` per cent of values do not exceed."""
    reached = np.cumsum(histogram.counts) >= share / 100 * histogram.counts.sum()
    return float((int(np.argmax(reached)) + 1) * histogram.top / len(histogram.counts))


def mse_clip(histogram: Histogram) -> float:
    """The magnitude with the smallest mean squared error after clipping and rounding to 127 steps."""
    width = histogram.top / len(histogram.counts)
    centres = (np.arange(len(histogram.counts)) + 0.5) * width
    weights = histogram.counts.astype(np.float64)
    best, best_error = histogram.top, np.inf
    for last in range(len(weights) // 16, len(weights) + 1, 8):
        limit = last * width
        step = limit / INT8_LEVELS
        # Inside a bin wider than a step the rounding error is that of a uniform spread.
        inside = np.minimum(centres, limit)
        fine = step <= width
        rounding = np.full_like(inside, step**2 / 12) if fine else (inside - np.round(inside / step) * step) ** 2
        error = float((weights * np.where(centres > limit, (centres - limit) ** 2, rounding)).sum())
        if error < best_error:
            best, best_error = limit, error
    return float(best)


def entropy_clip(histogram: Histogram) -> float:
    """The magnitude whose 128-level distribution diverges least from the measured one."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1] if len(counts) > 1 else counts[0]  # exact zeros say nothing about the shape
    width = histogram.top / len(counts)
    best, best_divergence = histogram.top, np.inf
    for last in range(INT8_LEVELS + 1, len(counts) + 1, 8):
        divergence = _divergence(counts, last)
        if divergence < best_divergence:
            best, best_divergence = last * width, divergence
    return float(best)


METHODS: dict[str, Callable[[Histogram], float]] = {
    "minmax": minmax_clip,
    "percentile": percentile_clip,
    "entropy": entropy_clip,
    "mse": mse_clip,
}


def _divergence(counts: F64, last: int) -> float:
    measured = counts[:last].copy()
    measured[-1] += counts[last:].sum()
    # Each of the 128 levels spreads its sum evenly over those of its bins that are not empty.
    level = np.arange(last) * (INT8_LEVELS + 1) // last
    kept = counts[:last]
    filled = kept > 0
    sums = np.bincount(level, weights=kept, minlength=INT8_LEVELS + 1)
    holders = np.bincount(level, weights=filled, minlength=INT8_LEVELS + 1)
    spread = np.where(filled, (sums / np.maximum(holders, 1))[level], 0)
    p, q = measured / measured.sum(), spread / max(spread.sum(), 1e-30)
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))).sum())


def _share(text: str, method: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 50 <= share <= 100:
        raise UsageError(f"'{method}' asks for an impossible share", where="--calibrator", fix="use percentile:99.999")
    return share
