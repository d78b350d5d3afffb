"""The CPU runner: OpenVINO through the C library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gms_rt.runtime.base import U8, Runner, RunnerInfo, Timings
from gms_rt.runtime.binding import BenchResult, NativeRunner


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

    `mode="latency"` gives one image all threads; `mode="throughput"` keeps several images in flight, on `lanes` of
    them (0: as many as OpenVINO finds best for this machine). `execution` is asked for, and `info.execution` says what
    OpenVINO really does; bf16 on a CPU without it is an error, never a fallback. `quantised` says that the graph holds
    int8 nodes. `batch` chooses the size of a free batch dimension.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int = 0,
        execution: Literal["f32", "bf16"] = "f32",
        lanes: int = 0,
        mode: Literal["latency", "throughput"] = "latency",
        cache: Path | None = None,
        quantised: bool = False,
        batch: int = 0,
    ) -> None:
        self._native = NativeRunner.open_cpu(
            graph, threads=threads, lanes=lanes, precision=execution, mode=mode, cache=cache, batch=batch
        )
        about = self._native.info
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

    def _infer(self, images: U8, probabilities: U8) -> None:
        self._native.infer(images, probabilities)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        return timings_from_bench(self._native.bench(images, seconds=seconds, iterations=iterations, warmup=warmup))

    def _close(self) -> None:
        self._native.close()
