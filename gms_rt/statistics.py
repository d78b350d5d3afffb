"""How sure a number is: bootstrap intervals with a fixed seed, so that two runs agree to the last digit, and what a
sample promises about values that nobody has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gms_rt.arrays import F64
from gms_rt.errors import UsageError

Statistic = Callable[[F64], F64]

_RESAMPLES = 4000
_SEED = 20240229


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value with probability `level`."""

    low: float
    high: float
    level: float = 0.95


def mean(samples: F64) -> F64:
    """The mean of each row."""
    return np.asarray(samples.mean(axis=-1), np.float64)


def median(samples: F64) -> F64:
    """The median of each row."""
    return np.asarray(np.median(samples, axis=-1), np.float64)


def bootstrap(
    values: Sequence[float] | F64, statistic: Statistic = mean, *, level: float = 0.95, seed: int = _SEED
) -> Interval:
    """The percentile-bootstrap interval of a statistic.

    >>> interval = bootstrap([0.98, 0.99, 1.0, 0.97])
    >>> 0.97 <= interval.low <= 0.985 <= interval.high <= 1.0
    True
    """
    draws = statistic(_resample(_as_samples(values), np.random.default_rng(seed)))
    return _interval(draws, level)


def bootstrap_ratio(
    new: Sequence[float] | F64, old: Sequence[float] | F64, statistic: Statistic = median, *, level: float = 0.95,
    seed: int = _SEED,
) -> Interval:  # fmt: skip
    """The interval of statistic(new) / statistic(old), both resampled on their own.

    >>> bootstrap_ratio([20.0, 20.0, 20.0], [10.0, 10.0, 10.0])
    Interval(low=2.0, high=2.0, level=0.95)
    """
    generator = np.random.default_rng(seed)
    above = statistic(_resample(_as_samples(new), generator))
    below = statistic(_resample(_as_samples(old), generator))
    if not (below > 0).all():
        raise UsageError("a ratio needs positive values below", where="bootstrap_ratio")
    return _interval(above / below, level)


def bootstrap_change(
    new: Sequence[float] | F64, old: Sequence[float] | F64, *, level: float = 0.95, seed: int = _SEED
) -> Interval:
    """The interval of mean(new) - mean(old) of values that are not paired: both are resampled on their own.

    >>> bootstrap_change([0.5, 0.5], [0.75, 0.75])
    Interval(low=-0.25, high=-0.25, level=0.95)
    """
    generator = np.random.default_rng(seed)
    above = mean(_resample(_as_samples(new), generator))
    return _interval(above - mean(_resample(_as_samples(old), generator)), level)


def bootstrap_share(
    parts: Sequence[float] | F64, wholes: Sequence[float] | F64, *, level: float = 0.95, seed: int = _SEED
) -> Interval:
    """The interval of sum(parts) / sum(wholes), resampled in pairs; pairs with an empty whole are left out.

    >>> bootstrap_share([1, 2, 0], [1, 2, 0])
    Interval(low=1.0, high=1.0, level=0.95)
    """
    above, below = _as_samples(parts), _as_samples(wholes)
    if above.size != below.size or (below < 0).any() or not (below > 0).any():
        raise UsageError("a share needs as many parts as wholes, and one that is not empty", where="bootstrap_share")
    above, below = above[below > 0], below[below > 0]
    picked = np.random.default_rng(seed).integers(0, below.size, (_RESAMPLES, below.size))
    return _interval(above[picked].sum(axis=1) / below[picked].sum(axis=1), level)


def tolerance_bound(values: Sequence[float] | F64, coverage: float, confidence: float = 0.95) -> float | None:
    """The value that at least the share `coverage` of all such values reaches, with this confidence; None if too few.

    It is the highest order statistic that can promise this (a distribution-free tolerance bound), so nothing is assumed
    about the values but that those to come are drawn like these.

    >>> tolerance_bound([0.9] + [0.99] * 98, 0.97), tolerance_bound([0.99] * 98, 0.97)
    (0.9, None)
    """
    ordered = np.sort(_as_samples(values))
    rank = _bound_rank(ordered.size, coverage, confidence)
    return float(ordered[rank - 1]) if rank else None


def values_below_bound(count: int, coverage: float, confidence: float = 0.95) -> int:
    """How many of `count` values may lie below a `tolerance_bound` that still holds; -1 where `count` is too small.

    >>> values_below_bound(98, 0.97), values_below_bound(99, 0.97), values_below_bound(300, 0.97)
    (-1, 0, 3)
    """
    return _bound_rank(count, coverage, confidence) - 1


def assured_coverage(count: int, confidence: float = 0.95) -> float:
    """The share of all such values that reach the lowest of `count`, with this confidence.

    >>> round(assured_coverage(99), 3)
    0.97
    """
    return float((1 - confidence) ** (1 / count))


def values_for_coverage(coverage: float, confidence: float = 0.95) -> int:
    """How many values it takes until the lowest of them promises this coverage.

    >>> values_for_coverage(0.97), values_for_coverage(0.99)
    (99, 299)
    """
    return math.ceil(math.log(1 - confidence) / math.log(coverage))


def _bound_rank(count: int, coverage: float, confidence: float) -> int:
    """The highest rank (from 1) whose order statistic has the coverage with the confidence; 0 where none has."""
    rank, below = 0, 0.0
    for k in range(count):
        # The chance that exactly k of the values lie in the lowest share 1 - coverage.
        log_chance = (
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            + k * math.log1p(-coverage) + (count - k) * math.log(coverage)
        )  # fmt: skip
        below += math.exp(log_chance)
        if below > 1 - confidence:
            break
        rank = k + 1
    return rank


def _as_samples(values: Sequence[float] | F64) -> F64:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise UsageError("an interval needs at least one finite number", where="bootstrap")
    return array


def _resample(values: F64, generator: np.random.Generator) -> F64:
    return np.asarray(values[generator.integers(0, values.size, (_RESAMPLES, values.size))], np.float64)


def _interval(draws: F64, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
