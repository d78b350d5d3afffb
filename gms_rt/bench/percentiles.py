"""Latency statistics by trtexec's definitions, which users of TensorRT know.

The p-th percentile is the sample at index max(N-1-int((1-p/100)·N), 0) of the ascending list; the median averages
the middle two; the coefficient of variation is standard deviation over mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gms_rt.arrays import F64
from gms_rt.bench.results import Latency
from gms_rt.errors import UsageError

CURVE_POINTS = 101


def trtexec_percentile(ascending: F64, p: float) -> float:
    """A percentile of sorted samples by trtexec's index rule.

    >>> trtexec_percentile(np.arange(1.0, 101.0), 99)
    100.0
    >>> trtexec_percentile(np.arange(1.0, 201.0), 90)
    180.0
    """
    count = len(ascending)
    if count == 0 or not 0 <= p <= 100:
        raise UsageError(f"percentile {p} of {count} samples does not exist", where="percentile")
    # trtexec computes in single precision; the last bit decides where p·N is a whole number.
    excluded = int((np.float32(1) - np.float32(p) / np.float32(100)) * np.float32(count))
    return float(ascending[max(count - 1 - excluded, 0)])


def latency_from_samples(samples: Sequence[float] | F64) -> Latency:
    """The statistics of one list of milliseconds."""
    ascending = np.sort(np.asarray(samples, np.float64))
    if not len(ascending) or not np.isfinite(ascending).all() or ascending[0] < 0:
        raise UsageError("a latency needs at least one sample, finite and not negative", where="latency_from_samples")
    average = float(ascending.mean())
    return Latency(
        count=len(ascending),
        min=float(ascending[0]),
        mean=average,
        median=float(np.median(ascending)),
        p90=trtexec_percentile(ascending, 90),
        p95=trtexec_percentile(ascending, 95),
        p99=trtexec_percentile(ascending, 99),
        max=float(ascending[-1]),
        cov=float(ascending.std() / average * 100) if average > 0 else 0.0,
    )


def curve_from_samples(samples: Sequence[float] | F64) -> tuple[float, ...]:
    """The distribution as 101 quantiles (0 %, 1 %, … 100 %), enough to draw it."""
    values = np.quantile(np.asarray(samples, np.float64), np.linspace(0, 1, CURVE_POINTS))
    return tuple(round(float(v), 4) for v in values)
