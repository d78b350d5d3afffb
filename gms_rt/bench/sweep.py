"""The throughput-latency curve: the same engine with more and more images in flight, and with more and more at once.

Streams can be swept for every engine. Batches can where the engine's graph leaves them open (exported with a range);
otherwise the engine says that its batch is fixed, and engines built with other batches share one curve by being named
together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.bench.latency import Opener
from gms_rt.bench.percentiles import latency_from_samples
from gms_rt.bench.results import SweepPoint
from gms_rt.bench.subjects import fit_images, labels
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.select import load
from gms_rt.errors import ArtifactError
from gms_rt.graph.read import takes_any_batch
from gms_rt.runtime.device import probe
from gms_rt.runtime.options import GraphUse

BATCHES = (2, 4, 8)
_ITERATIONS, _MIN_ITERATIONS = 10, 3
_POINT_SECONDS = 20.0  # a point that would take longer is left out, and said to be


@dataclass(frozen=True)
class SweepOptions:
    """Which points of the curve are measured, and how."""

    lanes: tuple[int, ...] = ()  # images in flight; by default 1, 2, 4 … up to the cores
    batches: tuple[int, ...] = BATCHES  # images at once, where an engine leaves that open
    seconds: float = 1.0  # timed for each point
    warmup: float = 0.2  # untimed seconds before each point
    device: str | None = None  # "cpu" or "cuda[:N]"
    threads: int = 0  # CPU threads (0: the runtime's choice)
    trust_plans: bool = False  # whether plans are loaded whoever built them
    cuda_graph: GraphUse = "auto"  # whether plans are replayed as CUDA graphs


def sweep(
    engines: Sequence[Path],
    images: U8,
    options: SweepOptions | None = None,
    *,
    opener: Opener = load,
    progress: Callable[[str], None] | None = None,
) -> tuple[tuple[SweepPoint, ...], str]:
    """Median latency and throughput for each number of streams and each batch.

    The second value says why an engine has no batches, or fewer.
    """
    how = options or SweepOptions()
    # `measure` has loaded these engines before, and looked at their masks.
    shared = {
        "device": how.device,
        "threads": how.threads,
        "trust_plans": how.trust_plans,
        "trust_device": True,
        "cuda_graph": how.cuda_graph,
    }
    points: list[SweepPoint] = []
    reasons = []
    for folder, label in zip(engines, labels([str(e) for e in engines]), strict=True):

        def point(
            what: str, iterations: int, folder: Path = folder, label: str = label, **opened: object
        ) -> tuple[SweepPoint, str]:
            if progress:
                progress(f"sweep: {label}, {what}")
            with opener(folder, **shared, **opened) as engine:
                info = engine.runner.info
                timings = engine.runner.bench(
                    fit_images(images, info.height, info.width),
                    seconds=how.seconds,
                    warmup=how.warmup,
                    iterations=iterations,
                )
            found = latency_from_samples(np.asarray(timings.total))
            rate = timings.images_per_second
            return SweepPoint(label, info.batch, info.lanes, found.median, found.p95, rate), info.backend

        iterations, single, backend = _ITERATIONS, 0.0, ""
        for count in how.lanes or default_lanes():
            mode = "throughput" if count > 1 else "latency"
            found, backend = point(f"{count} in flight", iterations, lanes=count, mode=mode)
            points.append(found)
            single = single or found.median / found.batch / 1e3
            iterations = _affordable(single)
        reason = _fixed(folder, backend)
        for batch in () if reason else how.batches:
            if single * batch * _MIN_ITERATIONS > _POINT_SECONDS:
                reason = f"batch {batch} and more would take longer than {_POINT_SECONDS:.0f} s per point"
                break
            points.append(point(f"batch {batch}", _affordable(single * batch), batch=batch)[0])
        reasons += [(label, reason)] if reason else []
    return tuple(points), _sentence(reasons)


def default_lanes() -> list[int]:
    """1, 2, 4 … and the number of cores; on a GPU machine up to 8 at least."""
    machine = probe()
    top = max(machine.cpu.cores, 8 if machine.gpus else 1)
    return sorted({1, *(2**n for n in range(1, 6) if 2**n <= top), min(top, os.cpu_count() or 1)})


def _affordable(seconds: float) -> int:
    return max(_MIN_ITERATIONS, min(_ITERATIONS, int(_POINT_SECONDS / max(seconds, 1e-6))))


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


def _sentence(reasons: Sequence[tuple[str, str]]) -> str:
    """Engines with the same reason in one sentence.

    >>> _sentence([("a", "it is fixed"), ("b", "it is fixed")]).partition(";")[0]
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
