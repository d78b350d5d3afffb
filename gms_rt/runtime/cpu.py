"""The CPU runner: OpenVINO through the C library.

One image gets all threads. For many images it can be faster to work on several at once, each with fewer threads;
whether it is depends on graph and machine, so a runner finds out on the first long batch and keeps the faster way.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from gms_rt.arrays import U8
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.device import processor_name
from gms_rt.runtime.options import CpuSettings

# A second compilation of the graph must promise to pay for itself: by this much of the remaining time, twice over.
HOPED_GAIN = 0.25
# Less than this is not worth the memory of a second compilation.
NEEDED_GAIN = 1.05


class CpuRunner(Runner):
    """A fused graph on the CPU: an `.onnx` file, or the graph of an engine folder after its hashes were compared.

    With `mode="latency"` one image gets all threads; many images are segmented on several lanes at the same time where
    that is measured to be faster (`info.details["batch_lanes"]` says how many, once known). `mode="throughput"` keeps
    several images in flight from the start, and `bench` measures that; 1 lane there means as many as OpenVINO finds
    best. `info.execution` says what OpenVINO really does; `quantised` says that the graph has int8 nodes.
    """

    def __init__(self, graph: Path, settings: CpuSettings | None = None, *, quantised: bool = False) -> None:
        settings = settings or CpuSettings()
        throughput = settings.mode == "throughput"
        self._native = NativeRunner.open_cpu(
            graph, replace(settings, lanes=0) if throughput and settings.lanes == 1 else settings
        )
        self._graph = graph
        # How the graph is opened again; what was opened once need not be tried again.
        self._more = replace(settings, mode="throughput", lanes=0, trial="never")
        self._wide: NativeRunner | None = None
        self._choice = threading.Lock()
        about = self._native.info
        self._chosen = throughput or about.lanes > 1
        self._open_seconds = about.open_ms / 1000
        super().__init__(
            RunnerInfo(
                backend="cpu",
                batch=about.batch,
                height=about.height,
                width=about.width,
                device=processor_name(about.device),
                execution=f"i8+{about.execution}" if quantised else about.execution,
                lanes=about.lanes,
                threads=about.threads,
                details={"runtime": about.runtime, "mode": settings.mode, "open_ms": round(about.open_ms, 3)},
            )
        )

    def _infer(self, images: U8, probabilities: U8) -> None:
        done = 0
        if not self._chosen and len(images) >= 16 * self.info.batch and self._choice.acquire(blocking=False):
            try:
                done = self._choose(images, probabilities)
            finally:
                self._choice.release()
        wide = self._wide
        runner = wide if wide is not None and len(images) - done >= 2 * self.info.batch else self._native
        runner.infer(images[done:], probabilities[done:])

    def _choose(self, images: U8, probabilities: U8) -> int:
        """Segment the first images both ways if that promises to pay; how many are done then."""
        part = max(len(images) // 16, 4)
        part -= part % self.info.batch
        part = max(part, self.info.batch)
        single = _timed(self._native, images, probabilities, 0, part)
        done = part
        if (len(images) - done) * single * HOPED_GAIN < 2 * self._open_seconds:
            return done  # too short a batch to decide on
        wide = NativeRunner.open_cpu(self._graph, self._more)
        lanes = wide.info.lanes
        step = min(lanes * self.info.batch * -(-part // (lanes * self.info.batch)), (len(images) - done) // 2)
        if lanes > 1 and step >= lanes * self.info.batch:
            _timed(wide, images, probabilities, done, step)  # lanes are slow when they run for the first time
            side_by_side = _timed(wide, images, probabilities, done + step, step)
            done += 2 * step
            if single >= NEEDED_GAIN * side_by_side:
                self.info.details["batch_lanes"] = lanes
                self._wide = wide
        if self._wide is None:
            self.info.details["batch_lanes"] = 1
            wide.close()
        self._chosen = True
        return done

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        return self._native.bench(images, seconds=seconds, iterations=iterations, warmup=warmup)

    def _close(self) -> None:
        with self._choice:
            if self._wide is not None:
                self._wide.close()
        self._native.close()


def _timed(runner: NativeRunner, images: U8, probabilities: U8, start: int, count: int) -> float:
    """Seconds per image for `count` images from `start`."""
    part = slice(start, start + count)
    began = time.perf_counter()
    runner.infer(images[part], probabilities[part])
    return (time.perf_counter() - began) / count
