"""The CPU runner: OpenVINO through the C library.

One image gets all threads. For many images it can be faster to work on several side by side, each with fewer threads;
whether it is depends on graph and machine, so a runner finds out on the first long batch and keeps the faster way.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Literal

from gms_rt.arrays import U8
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from gms_rt.runtime.binding import BenchResult, NativeRunner, Trial

# A second compilation of the graph must promise to pay for itself: by this much of the remaining time, twice over.
HOPED_GAIN = 0.25
# Less than this is not worth the memory of a second compilation.
NEEDED_GAIN = 1.05


def timings_from_bench(result: BenchResult) -> Timings:
    """The library's samples as a runner's timings."""
    samples = result.samples
    return Timings(
        total=samples["total"].copy(),
        compute=samples["compute"].copy(),
        h2d=samples["h2d"].copy(),
        d2h=samples["d2h"].copy(),
        enqueue=samples["enqueue"].copy(),
        wall_seconds=result.wall_seconds,
        warmup_seconds=result.warmup_seconds,
        batch=result.batch,
        lanes=result.lanes,
    )


class CpuRunner(Runner):
    """A fused graph on the CPU.

    `mode="latency"` gives one image all threads; many images are then segmented side by side where that is measured
    to be faster (`info.details["batch_lanes"]` says how many, once known). `mode="throughput"` keeps several images
    in flight from the start, and `bench` measures that; `lanes` says how many (throughput with 0 or 1: as many as
    OpenVINO finds best). `execution` is asked for, and `info.execution` says what OpenVINO really does; bf16 on a
    CPU without it is an error, never a fallback. `quantised` says that the graph holds int8 nodes. `batch` chooses
    the size of a free batch dimension. `cache` is a folder for compiled graphs. `trial` says whether the graph is first
    run in a process of its own, so that one on which OpenVINO crashes is an error and not the end of this process:
    "auto" does it once for a graph and remembers, "always" every time, "never" is for graphs that are trusted.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int = 0,
        execution: Literal["f32", "bf16"] = "f32",
        lanes: int = 1,
        mode: Literal["latency", "throughput"] = "latency",
        cache: Path | None = None,
        quantised: bool = False,
        batch: int = 0,
        trial: Trial = "auto",
    ) -> None:
        self._graph, self._threads, self._execution, self._cache, self._batch = graph, threads, execution, cache, batch
        self._trial: Trial = trial
        self._native = self._open(mode, 0 if mode == "throughput" and lanes == 1 else lanes)
        self._wide: NativeRunner | None = None
        self._choice = threading.Lock()
        self._trial = "never"  # what was opened once need not be tried again
        about = self._native.info
        self._chosen = mode == "throughput" or about.lanes > 1
        self._open_seconds = about.open_ms / 1000
        super().__init__(
            RunnerInfo(
                backend="cpu",
                batch=about.batch,
                height=about.height,
                width=about.width,
                device=about.device,
                execution=f"i8+{about.execution}" if quantised else about.execution,
                lanes=about.lanes,
                threads=about.threads,
                details={"runtime": about.runtime, "mode": mode, "open_ms": round(about.open_ms, 3)},
            )
        )

    def _open(self, mode: Literal["latency", "throughput"], lanes: int) -> NativeRunner:
        return NativeRunner.open_cpu(
            self._graph,
            threads=self._threads,
            lanes=lanes,
            precision=self._execution,
            mode=mode,
            cache=self._cache,
            batch=self._batch,
            trial=self._trial,
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
        wide = self._open("throughput", 0)
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
        return timings_from_bench(self._native.bench(images, seconds=seconds, iterations=iterations, warmup=warmup))

    def _close(self) -> None:
        with self._choice:
            if self._wide is not None:
                self._wide.close()
        self._native.close()


def _timed(runner: NativeRunner, images: U8, probabilities: U8, start: int, count: int) -> float:
    """Seconds an image for `count` images from `start`."""
    part = slice(start, start + count)
    began = time.perf_counter()
    runner.infer(images[part], probabilities[part])
    return (time.perf_counter() - began) / count
