"""The throughput-latency curve: the same engine with more and more images in flight.

An engine's batch is fixed when it is built, so the sweep is over streams; other batches are other engines, and
naming several engines of one model puts their batches on one curve.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gms_rt.bench.latency import Opener, fit_images, labels
from gms_rt.bench.percentiles import latency_of
from gms_rt.bench.results import SweepPoint
from gms_rt.runtime.base import U8
from gms_rt.runtime.device import probe
from gms_rt.runtime.select import load

WHY = "An engine's batch is fixed when it is built; to sweep batches, name engines built with other --batch values."


def sweep(
    engines: Sequence[Path],
    images: U8,
    *,
    lanes: Sequence[int] | None = None,
    seconds: float = 1.0,
    warmup: float = 0.2,
    device: str | None = None,
    opener: Opener = load,
    progress: Callable[[str], None] | None = None,
) -> tuple[SweepPoint, ...]:
    """Median latency and throughput for each number of streams (by default 1, 2, 4 … up to the cores)."""
    points = []
    for folder, label in zip(engines, labels([str(e) for e in engines]), strict=True):
        for count in lanes if lanes is not None else default_lanes():
            if progress:
                progress(f"sweep: {label}, {count} in flight")
            mode = "throughput" if count > 1 else "latency"
            with opener(folder, device=device, lanes=count, mode=mode) as engine:
                info = engine.runner.info
                timings = engine.runner.bench(
                    fit_images(images, info.height, info.width), seconds=seconds, warmup=warmup, iterations=10
                )
            latency = latency_of(np.asarray(timings.total))
            points.append(
                SweepPoint(label, info.batch, info.lanes, latency.median, latency.p95, timings.images_per_second)
            )
    return tuple(points)


def default_lanes() -> list[int]:
    """1, 2, 4 … and the number of cores; on a GPU machine up to 8 at least."""
    machine = probe()
    top = max(machine.cpu.cores, 8 if machine.gpus else 1)
    return sorted({1, *(2**n for n in range(1, 6) if 2**n <= top), min(top, os.cpu_count() or 1)})
