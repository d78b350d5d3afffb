"""Intervals that say how sure a number is: bootstrap with a fixed seed, so that two runs agree to the last digit."""

from __future__ import annotations

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
