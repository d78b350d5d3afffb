"""One image after the other against a batch: what `infer` gains when it is given many images at once.

    python benchmarks/throughput.py [GRAPH.onnx …] [--images 200] [--rounds 5] [--out throughput.json]

Per round and graph: all images one by one through a latency runner, then all of them in one call of the same runner,
which may work on several side by side, then some on one thread. The figures are medians over the rounds; the first
batch, in which the runner finds out what is faster, is reported but not counted. `possible` is the gain if every core
were as fast as one thread that has the machine to itself: what no way of sharing the work can exceed. With it: the
latency of single images after batches against that of a fresh runner, because a batch must not spoil them. Masks of
both ways are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.options import CpuSettings


def measure(graph: Path, count: int, rounds: int) -> dict[str, Any]:
    """Images per second of one graph, every way in every round."""
    with CpuRunner(graph) as runner, CpuRunner(graph) as fresh, CpuRunner(graph, CpuSettings(threads=1)) as lonely:
        info, cores = runner.info, len(os.sched_getaffinity(0))
        images = np.random.default_rng(0).integers(0, 256, (count, info.height, info.width, 3), np.uint8)
        start = time.perf_counter()
        together = runner.infer(images)
        first = count / (time.perf_counter() - start)
        rows = []
        different = 0.0
        for _ in range(rounds):
            single, one_by_one = rate(lambda: np.concatenate([runner.infer(i[None]) for i in images]), count)
            batch, together = rate(lambda: runner.infer(images), count)
            # One thread by itself: what each core could do if it had the machine's memory and clock to itself.
            alone, _ = rate(lambda: [lonely.infer(i[None]) for i in images[: count // 4]], count // 4)
            before, after = (latency(r, images[:8]) for r in (fresh, runner))
            different = max(different, float((one_by_one != together).mean()))
            rows.append((single, batch, batch / single, alone * cores / single, before, after, after / before))
        columns = [statistics.median(column) for column in zip(*rows, strict=True)]
        names = ("single_per_second", "batch_per_second", "gain", "most_possible_gain", "latency_ms",
                 "latency_after_batch_ms", "latency_ratio")  # fmt: skip
        about = {
            "graph": graph.name,
            "device": info.device,
            "cores": cores,
            "threads": info.threads,
            "batch_lanes": info.details.get("batch_lanes", 1),
            "first_batch_per_second": first,
            "different_pixels": different,
            "images": count,
            "rounds": rounds,
        }
        return about | dict(zip(names, columns, strict=True))


def rate(work: Callable[[], Any], count: int) -> tuple[float, Any]:
    """Images per second of some work, and its result."""
    start = time.perf_counter()
    result = work()
    return count / (time.perf_counter() - start), result


def latency(runner: CpuRunner, images: np.ndarray) -> float:
    """Median milliseconds of single images."""
    return float(np.median(runner.bench(images, seconds=1.0, iterations=10).total))


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", type=Path, help="default: a random network of some ten milliseconds")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graphs = options.graphs or [random_graph(Path(folder))]
        results = [measure(graph, options.images, options.rounds) for graph in graphs]
    print(
        f"{'graph':20} {'single/s':>9} {'batch/s':>9} {'gain':>6} {'possible':>9} {'lanes':>6} {'ms':>9} {'after':>7}"
    )
    for r in results:
        print(
            f"{r['graph']:20} {r['single_per_second']:9.1f} {r['batch_per_second']:9.1f} {r['gain']:6.3f}"
            f" {r['most_possible_gain']:9.3f} {r['batch_lanes']:6} {r['latency_ms']:9.3f} {r['latency_ratio']:7.3f}"
        )
    if options.out:
        report = {"machine": platform.machine(), "results": results}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def random_graph(folder: Path) -> Path:
    """A random network of the artefact's shape."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from support.native_graphs import conv_graph

    return conv_graph(folder / "random-224x24.onnx", size=224, width=24, depth=4)


if __name__ == "__main__":
    sys.exit(main())
