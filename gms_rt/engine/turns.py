"""Several opened runners timed in turn, so that a busy machine disturbs all alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gms_rt.arrays import F64, U8
from gms_rt.runtime.base import Runner

K = TypeVar("K")


def latencies_in_turns(runners: Mapping[K, tuple[Runner, U8]], *, rounds: int, seconds: float) -> dict[K, F64]:
    """Milliseconds of every inference of each runner over its own images, `seconds` of each in every round."""
    samples: dict[K, list[F64]] = {key: [] for key in runners}
    for _ in range(rounds):
        for key, (runner, images) in runners.items():
            samples[key].append(runner.bench(images, seconds=seconds, iterations=3, warmup=0.05).total)
    return {key: np.concatenate(parts) for key, parts in samples.items()}
