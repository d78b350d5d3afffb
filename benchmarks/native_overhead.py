"""What the C library adds to OpenVINO: the same graph, timed by both in turn within one process.

    python benchmarks/native_overhead.py [GRAPH.onnx …] [--rounds 200] [--seconds 0.05] [--out overhead.json]

Per round each side runs for `--seconds`, the order changing from round to round, so that a change of the machine's
speed meets both. OpenVINO's side is a synchronous loop over its own Python API into preallocated tensors, as its
`benchmark_app` does; the library's is `gmsrt_bench`, which also copies image and mask. The figure is the median over
the rounds of the ratio of the two median latencies; the ratio of the two fastest inferences stands next to it, which
other load on the machine disturbs least. Rounds are short, so that such load meets both sides alike. Results of both
sides are compared first.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.runtime.binding import NativeRunner
from gms_rt.telemetry import quiet_module

LIMIT = 1.02


class OpenVinoLoop:
    """One infer request, run synchronously, with the settings of a latency runner."""

    def __init__(self, graph: Path) -> None:
        openvino = quiet_module("openvino")
        properties = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
        self.version = str(openvino.get_version())
        self.request = openvino.Core().compile_model(str(graph), "CPU", properties).create_infer_request()

    def masks(self, images: np.ndarray) -> np.ndarray:
        """The masks of one batch."""
        self.request.get_input_tensor().data[...] = images
        self.request.infer()
        return np.array(self.request.get_output_tensor().data)

    def latencies(self, seconds: float) -> list[float]:
        """Milliseconds of each inference."""
        samples = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples) < 5:
            start = time.perf_counter()
            self.request.infer()
            samples.append((time.perf_counter() - start) * 1e3)
        return samples


def measure(graph: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Ratios of one graph."""
    theirs = OpenVinoLoop(graph)
    with NativeRunner.open_cpu(graph) as ours:
        about = ours.info
        images = np.random.default_rng(0).integers(0, 256, (about.batch, about.height, about.width, 3), np.uint8)
        masks = np.empty(images.shape[:3], np.uint8)
        ours.infer(images, masks)
        if not np.array_equal(masks, theirs.masks(images).reshape(masks.shape)):
            raise SystemExit(f"{graph}: the two sides do not agree")
        ours.bench(images, seconds=seconds, iterations=5, warmup=0.0)
        theirs.latencies(seconds)
        pairs = []
        fastest = [float("inf"), float("inf")]
        for turn in range(rounds):
            first = theirs.latencies(seconds) if turn % 2 else []
            own = ours.bench(images, seconds=seconds, iterations=5, warmup=0.0).total
            other = first or theirs.latencies(seconds)
            pairs.append((float(np.median(own)), statistics.median(other)))
            fastest = [min(fastest[0], float(own.min())), min(fastest[1], *other)]
    ratios = sorted(own / other for own, other in pairs)
    return {
        "graph": graph.name,
        "openvino": theirs.version,
        "library_ms": statistics.median(own for own, _ in pairs),
        "openvino_ms": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
        "fastest_ratio": fastest[0] / fastest[1],
        "rounds": rounds,
    }


def main() -> int:
    """Measure, print a table, write JSON; 1 if a median ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", type=Path, help="default: two small random networks")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(g, options.rounds, options.seconds) for g in options.graphs or small_graphs(Path(folder))]
    print(f"{'graph':24} {'library ms':>11} {'OpenVINO ms':>12} {'ratio':>7}  {'quartiles':13} {'fastest':>8}")
    for r in results:
        quartiles = "-".join(f"{q:.4f}" for q in r["ratio_quartiles"])
        print(
            f"{r['graph']:24} {r['library_ms']:11.3f} {r['openvino_ms']:12.3f} {r['ratio']:7.4f}"
            f"  {quartiles} {r['fastest_ratio']:8.4f}"
        )
    if options.out:
        report = {"machine": platform.machine(), "limit": LIMIT, "results": results}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(r["ratio"] > LIMIT for r in results))


def small_graphs(folder: Path) -> list[Path]:
    """Two random networks of the artefact's shape: one quick, one of some ten milliseconds."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from support.native_graphs import conv_graph

    quick = conv_graph(folder / "random-96x16.onnx", size=96, width=16, depth=4)
    return [quick, conv_graph(folder / "random-224x24.onnx", size=224, width=24, depth=4)]


if __name__ == "__main__":
    sys.exit(main())
