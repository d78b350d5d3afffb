"""One image after the other against a batch: what `infer` gains when it is given many images at once.

    python benchmarks/throughput.py [GRAPH.onnx …] [--images 200] [--rounds 5] [--out throughput.json]

Per round and graph: all images one by one through a latency runner, then all of them in one call of the same runner,
which may work on several side by side. The figures are medians over the rounds; the first batch, in which the runner
finds out what is faster, is reported but not counted. With it: the latency of the runner after a batch against before,
because a batch must not spoil single images. Masks of both ways are compared.
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
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.runtime.cpu import CpuRunner


def measure(graph: Path, count: int, rounds: int) -> dict[str, Any]:
    """Rates of one graph, images a second."""
    with CpuRunner(graph) as runner:
        info = runner.info
        images = np.random.default_rng(0).integers(0, 256, (count, info.height, info.width, 3), np.uint8)
        runner.infer(images[:2])
        before = float(np.median(runner.bench(images[:8], seconds=1.0, iterations=10).total))
        start = time.perf_counter()
        together = runner.infer(images)
        first = count / (time.perf_counter() - start)
        singles, batches, different = [], [], 0.0
        for _ in range(rounds):
            start = time.perf_counter()
            one_by_one = np.concatenate([runner.infer(images[i : i + 1]) for i in range(count)])
            singles.append(count / (time.perf_counter() - start))
            start = time.perf_counter()
            together = runner.infer(images)
            batches.append(count / (time.perf_counter() - start))
            different = max(different, float((one_by_one != together).mean()))
        after = float(np.median(runner.bench(images[:8], seconds=1.0, iterations=10).total))
        return {
            "graph": graph.name,
            "device": info.device,
            "cores": os.cpu_count(),
            "threads": info.threads,
            "batch_lanes": info.details.get("batch_lanes", 1),
            "single_per_second": statistics.median(singles),
            "first_batch_per_second": first,
            "batch_per_second": statistics.median(batches),
            "gain": statistics.median(b / s for b, s in zip(batches, singles, strict=True)),
            "latency_ms": before,
            "latency_after_batch_ms": after,
            "different_pixels": different,
            "images": count,
            "rounds": rounds,
        }


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
    print(f"{'graph':24} {'single/s':>9} {'batch/s':>9} {'gain':>6} {'lanes':>6} {'ms before':>10} {'ms after':>9}")
    for r in results:
        print(
            f"{r['graph']:24} {r['single_per_second']:9.1f} {r['batch_per_second']:9.1f} {r['gain']:6.3f}"
            f" {r['batch_lanes']:6} {r['latency_ms']:10.3f} {r['latency_after_batch_ms']:9.3f}"
        )
    if options.out:
        report = {"machine": platform.machine(), "results": results}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def random_graph(folder: Path) -> Path:
    """A random network of the artefact's shape."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from native_graphs import conv_graph

    return conv_graph(folder / "random-224x24.onnx", size=224, width=24, depth=4)


if __name__ == "__main__":
    sys.exit(main())
