"""The throughput-latency curve: the same engine with more and more images in flight, and with more and more at once.

Streams can be swept for every engine. Batches can where the engine's graph leaves them open (exported with a range);
otherwise the engine says that its batch is fixed, and engines built with other batches share one curve by being named
together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.bench.latency import Opener, fit_images, labels
from gms_rt.bench.percentiles import latency_of
from gms_rt.bench.results import SweepPoint
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.select import load
from gms_rt.errors import ArtifactError
from gms_rt.graph.read import takes_any_batch
from gms_rt.runtime.device import probe

BATCHES = (2, 4, 8)
_ITERATIONS, _LEAST = 10, 3
_POINT_SECONDS = 20.0  # a point that would take longer is left out, and said to be


def sweep(
    engines: Sequence[Path],
    images: U8,
    *,
    lanes: Sequence[int] | None = None,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    warmup: float = 0.2,
    device: str | None = None,
    threads: int = 0,
    opener: Opener = load,
    progress: Callable[[str], None] | None = None,
) -> tuple[tuple[SweepPoint, ...], str]:
    """Median latency and throughput for each number of streams (by default 1, 2, 4 … up to the cores) and each batch.

    The second value says why an engine has no batches, or fewer.
    """
    points: list[SweepPoint] = []
    reasons = []
    for folder, label in zip(engines, labels([str(e) for e in engines]), strict=True):
        say = progress or (lambda _: None)

        def point(
            what: str,
            iterations: int,
            folder: Path = folder,
            label: str = label,
            say: Callable[[str], None] = say,
            **how: object,
        ) -> tuple[SweepPoint, str]:
            say(f"sweep: {label}, {what}")
            with opener(folder, device=device, threads=threads, **how) as engine:
                info = engine.runner.info
                timings = engine.runner.bench(
                    fit_images(images, info.height, info.width), seconds=seconds, warmup=warmup, iterations=iterations
                )
            found = latency_of(np.asarray(timings.total))
            rate = timings.images_per_second
            return SweepPoint(label, info.batch, info.lanes, found.median, found.p95, rate), info.backend

        iterations, single, backend = _ITERATIONS, 0.0, ""
        for count in lanes if lanes is not None else default_lanes():
            mode = "throughput" if count > 1 else "latency"
            found, backend = point(f"{count} in flight", iterations, lanes=count, mode=mode)
            points.append(found)
            single = single or found.median / found.batch / 1e3
            iterations = _affordable(single)
        reason = _fixed(folder, backend)
        for batch in () if reason else batches:
            if single * batch * _LEAST > _POINT_SECONDS:
                reason = f"batch {batch} and more would take longer than {_POINT_SECONDS:.0f} s a point"
                break
            points.append(point(f"batch {batch}", _affordable(single * batch), batch=batch)[0])
        reasons += [(label, reason)] if reason else []
    return tuple(points), _in_words(reasons)


def default_lanes() -> list[int]:
    """1, 2, 4 … and the number of cores; on a GPU machine up to 8 at least."""
    machine = probe()
    top = max(machine.cpu.cores, 8 if machine.gpus else 1)
    return sorted({1, *(2**n for n in range(1, 6) if 2**n <= top), min(top, os.cpu_count() or 1)})


def _affordable(seconds: float) -> int:
    return max(_LEAST, min(_ITERATIONS, int(_POINT_SECONDS / max(seconds, 1e-6))))


def _fixed(folder: Path, backend: str) -> str:
    manifest = read_manifest(folder)
    if backend != "cpu":
        return f"the plan is built for a batch of {manifest.batch}"
    try:
        if takes_any_batch(folder / manifest.model):
            return ""
    except ArtifactError:
        pass  # what cannot be read offers no range
    return f"its graph was exported for a batch of {manifest.batch}"


def _in_words(reasons: Sequence[tuple[str, str]]) -> str:
    """Engines with the same reason in one sentence.

    >>> _in_words([("a", "it is fixed"), ("b", "it is fixed")]).partition(";")[0]
    'No batch curve for a, b: it is fixed'
    """
    if not reasons:
        return ""
    grouped: dict[str, list[str]] = {}
    for label, reason in reasons:
        grouped.setdefault(reason, []).append(label)
    words = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in grouped.items())
    return (
        f"No batch curve for {words}; export with --batch 1-8 and build for the CPU, or bench engines built with other "
        "--batch values together."
    )
