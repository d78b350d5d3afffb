"""What passes through a graph's tensors on calibration images.

`extremes` and `channel_peaks` add reductions to the graph, so that a tensor of any size comes out as a few numbers:
that is what FP16 typing and equalisation need. `histograms` takes the tensors themselves and counts their magnitudes:
that is what INT8 calibrators need.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.graph.edit import add_constant
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.progress import OnProgress, silent

BINS = 2048
# Magnitudes counted per tensor and image: larger tensors are sampled at an even stride.
SAMPLES = 1 << 15
# Tensors asked for at once: this many bytes of output memory.
_AT_ONCE = 256 << 20

Look = Callable[[str, NDArray[Any]], None]  # a tensor's name, its value for one image


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
    span: tuple[float, float] | None = None  # the lowest and the highest value, where they were looked at


def extremes(
    graph: Graph, tensors: Sequence[str], images: U8, progress: OnProgress = silent, *, means: Collection[str] = ()
) -> dict[str, Extremes]:
    """Extremes of float tensors, measured in FP32; those in `means` with their mean square and magnitude."""
    from onnx import helper

    nodes: list[Any] = []
    figures: list[str] = []

    def add_reduction(op: str, source: str, label: str) -> None:
        nodes.append(helper.make_node(op, [source], [f"{label}/scalar"], keepdims=0))
        nodes.append(helper.make_node("Reshape", [f"{label}/scalar", "range/one"], [label]))
        figures.append(label)

    for number, name in enumerate(tensors):
        base = f"range/{number}"
        nodes.append(helper.make_node("Abs", [name], [f"{base}/abs"]))
        add_reduction("ReduceMax", f"{base}/abs", f"{base}/peak")
        if name in means:
            nodes.append(helper.make_node("Mul", [name, name], [f"{base}/squared"]))
            add_reduction("ReduceMean", f"{base}/squared", f"{base}/square")
            add_reduction("ReduceMean", f"{base}/abs", f"{base}/mean")
    rows = _figures(graph, nodes, figures, {"range/one": [1]}, images, progress)
    found = iter(rows.max(0).tolist())
    return {
        name: Extremes(next(found), next(found), next(found)) if name in means else Extremes(next(found))
        for name in tensors
    }


def channel_peaks(graph: Graph, tensors: Sequence[str], images: U8) -> dict[str, NDArray[np.float64]]:
    """Each channel's largest magnitude, averaged over images."""
    from onnx import helper

    nodes = []
    for number, name in enumerate(tensors):
        base = f"range/{number}"
        nodes.append(helper.make_node("Abs", [name], [f"{base}/abs"]))
        nodes.append(helper.make_node("ReduceMax", [f"{base}/abs", "range/axes"], [f"{base}/peaks"], keepdims=0))
    peaks = [f"range/{number}/peaks" for number in range(len(tensors))]
    mean = _figures(graph, nodes, peaks, {"range/axes": [0, 2, 3]}, images, silent).mean(0)
    ends = np.cumsum([graph.shape[name][1] for name in tensors])
    return dict(zip(tensors, np.split(mean, ends[:-1]), strict=True))


def histograms(
    graph: Graph, tops: dict[str, float], images: U8, progress: OnProgress = silent, look: Look | None = None
) -> dict[str, Histogram]:
    """Magnitude histograms of the tensors in `tops`, whose largest magnitudes are known.

    `look` is shown every tensor's value for every image.
    """
    counts = {name: np.zeros(BINS, np.int64) for name in tops}
    spans = dict.fromkeys(tops, (np.inf, -np.inf))
    groups = _groups(graph, list(tops))
    for part, names in enumerate(groups):
        session = Session(with_outputs(graph, names))
        for number in range(len(images)):
            values = session.outputs(_batch(images, number, session.batch))[1:]
            for name, value in zip(names, values, strict=True):
                if look is not None:
                    look(name, value)
                low, high = spans[name]
                spans[name] = min(low, float(value.min())), max(high, float(value.max()))
                flat = value.reshape(-1)
                flat = flat[:: -(-flat.size // SAMPLES)]
                scaled = np.abs(flat) * np.float32(BINS / max(tops[name], 1e-30))
                counts[name] += np.bincount(np.minimum(scaled.astype(np.int32), BINS - 1), minlength=BINS)
            progress("calibration", part * len(images) + number + 1, len(groups) * len(images))
    return {name: Histogram(counts[name], tops[name], spans[name]) for name in tops}


def with_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with some of its tensors as further outputs, in order."""
    from onnx import helper

    probed = graph.copy()
    probed.model.graph.output.extend(
        helper.make_tensor_value_info(name, graph.dtype[name], graph.shape[name]) for name in names
    )
    return probed


def _figures(
    graph: Graph,
    nodes: Sequence[Any],
    figures: Sequence[str],
    constants: dict[str, list[int]],
    images: U8,
    progress: OnProgress,
) -> NDArray[np.float64]:
    """What `nodes`, added to the graph, make of each image: the vectors `figures` in one row."""
    from onnx import TensorProto, helper

    probed = graph.copy().model
    for name, value in constants.items():
        add_constant(probed, name, np.array(value, np.int64))
    probed.graph.node.extend([*nodes, helper.make_node("Concat", figures, ["range/all"], axis=0)])
    probed.graph.output.append(helper.make_tensor_value_info("range/all", TensorProto.FLOAT, [None]))
    session = Session(graph_from_model(probed))
    rows = []
    for number in range(len(images)):
        rows.append(np.asarray(session.outputs(_batch(images, number, session.batch))[1], np.float64))
        progress("ranges", number + 1, len(images))
    return np.stack(rows)


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
