"""What passes through a graph's tensors on calibration images.

`extremes` adds reductions to the graph, so that a tensor of any size comes out as a few numbers: that is what FP16
typing needs. `histograms` takes the tensors themselves and counts their magnitudes: that is what INT8 calibrators need.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.progress import OnProgress

BINS = 2048
# Magnitudes counted per tensor and image: larger tensors are sampled at an even stride.
SAMPLES = 1 << 15
# Tensors asked for at once: this many bytes of output memory.
_AT_ONCE = 256 << 20


@dataclass(frozen=True)
class Extremes:
    """One tensor over all images."""

    magnitude: float  # the largest
    mean_square: float = 0.0  # the largest of any image; 0 where it was not asked for
    mean_magnitude: float = 0.0  # likewise


@dataclass(frozen=True)
class Histogram:
    """Counts of magnitudes in equal bins from 0 to `top`."""

    counts: NDArray[np.int64]
    top: float


def extremes(
    graph: Graph, tensors: Sequence[str], images: U8, progress: OnProgress | None = None, *, means: Collection[str] = ()
) -> dict[str, Extremes]:
    """Extremes of float tensors, measured in FP32; those in `means` with their mean square and magnitude."""
    session = Session(_with_reductions(graph, tensors, means))
    rows = []
    for number in range(len(images)):
        rows.append(np.asarray(session.outputs(_batch(images, number, session.batch))[1], np.float64))
        if progress:
            progress("ranges", number + 1, len(images))
    figures = iter(np.stack(rows).max(0).tolist())
    return {
        name: Extremes(next(figures), next(figures), next(figures)) if name in means else Extremes(next(figures))
        for name in tensors
    }


def histograms(
    graph: Graph, tops: dict[str, float], images: U8, progress: OnProgress | None = None
) -> dict[str, Histogram]:
    """Magnitude histograms of the tensors in `tops`, whose largest magnitudes are known."""
    counts = {name: np.zeros(BINS, np.int64) for name in tops}
    groups = _groups(graph, list(tops))
    for part, names in enumerate(groups):
        session = Session(with_outputs(graph, names))
        for number in range(len(images)):
            values = session.outputs(_batch(images, number, session.batch))[1:]
            for name, value in zip(names, values, strict=True):
                flat = value.reshape(-1)
                flat = flat[:: -(-flat.size // SAMPLES)]
                scaled = np.abs(flat) * np.float32(BINS / max(tops[name], 1e-30))
                counts[name] += np.bincount(np.minimum(scaled.astype(np.int32), BINS - 1), minlength=BINS)
            if progress:
                progress("calibration", part * len(images) + number + 1, len(groups) * len(images))
    return {name: Histogram(counts[name], tops[name]) for name in tops}


def with_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with some of its tensors as further outputs, in order."""
    from onnx import helper

    probed = graph.copy()
    probed.model.graph.output.extend(
        helper.make_tensor_value_info(name, graph.dtype[name], graph.shape[name]) for name in names
    )
    return probed


def _with_reductions(graph: Graph, tensors: Sequence[str], means: Collection[str]) -> Graph:
    from onnx import TensorProto, helper, numpy_helper

    probed = graph.copy().model
    one = "range/one"
    probed.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), one))
    pieces: list[str] = []

    def add_reduction(op: str, source: str, label: str) -> None:
        probed.graph.node.append(helper.make_node(op, [source], [f"{label}/scalar"], keepdims=0))
        probed.graph.node.append(helper.make_node("Reshape", [f"{label}/scalar", one], [label]))
        pieces.append(label)

    for number, name in enumerate(tensors):
        base = f"range/{number}"
        probed.graph.node.append(helper.make_node("Abs", [name], [f"{base}/abs"]))
        add_reduction("ReduceMax", f"{base}/abs", f"{base}/peak")
        if name in means:
            probed.graph.node.append(helper.make_node("Mul", [name, name], [f"{base}/squared"]))
            add_reduction("ReduceMean", f"{base}/squared", f"{base}/square")
            add_reduction("ReduceMean", f"{base}/abs", f"{base}/mean")
    probed.graph.node.append(helper.make_node("Concat", pieces, ["range/all"], axis=0))
    probed.graph.output.append(helper.make_tensor_value_info("range/all", TensorProto.FLOAT, [len(pieces)]))
    return graph_from_model(probed)


def _groups(graph: Graph, names: list[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    used = 0
    for name in names:
        size = 4 * int(np.prod(graph.shape[name]))
        if groups[-1] and used + size > _AT_ONCE:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return [group for group in groups if group]


def _batch(images: U8, number: int, batch: int) -> Any:
    return np.ascontiguousarray(np.repeat(images[number : number + 1], batch, axis=0))
