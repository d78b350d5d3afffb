"""Is an INT8 plan faster on this GPU than the same graph in FP16? On some it is slower, and a build says so.

Both plans are run here, turn by turn, so that a busy or warm device disturbs both alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.runtime.base import Runner
from gms_rt.runtime.device import Gpu
from gms_rt.runtime.options import CudaSettings
from gms_rt.runtime.tensorrt import TensorRtRunner

_ROUNDS, _SECONDS = 5, 0.2


def plan_milliseconds(plans: tuple[bytes, bytes], where: Path, flavour: str, images: U8, gpu: Gpu) -> tuple[float, ...]:
    """The median time of one inference of each plan on a GPU, without the copies. `where` is for messages."""
    batch, height, width = images.shape[:3]
    settings = CudaSettings(batch=batch, height=height, width=width, device=gpu.index)
    runners: list[Runner] = []
    try:
        for content in plans:
            runners.append(TensorRtRunner(where, flavour, settings, content=content))
        rounds = [[_milliseconds(runner, images) for runner in runners] for _ in range(_ROUNDS)]
    finally:
        for runner in runners:
            runner.close()
    return tuple(float(median) for median in np.median(np.array(rounds), axis=0))


def _milliseconds(runner: Runner, images: U8) -> float:
    return float(np.median(runner.bench(images, seconds=_SECONDS, iterations=10, warmup=_SECONDS / 4).compute))
