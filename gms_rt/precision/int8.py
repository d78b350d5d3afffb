"""Explicit INT8: pairs of QuantizeLinear and DequantizeLinear around the convolutions that are to run in INT8.

One scale per tensor for activations, one per output channel for weights; biases stay as they are. Weights are signed
and symmetric, and stored as int8. So are activations for TensorRT, which knows nothing else. On a CPU a tensor whose
values lie mostly on one side of zero, as behind every rectifier, is unsigned with a zero point of its own: the 255
steps then span what occurs, not twice the larger side. What is outside the pairs keeps its type, so the remainder is
typed afterwards: FP16 for TensorRT, FP32 for a CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.graph.edit import add_constant, drop_unused, insert_nodes
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.read import graph_from_model
from gms_rt.precision.concat_as_sum import concats_as_sums
from gms_rt.precision.upsampling import pointwise_upsampling

QUANTISABLE = ("Conv", "ConvTranspose")
INT8_LEVELS = 127  # steps on one side of zero
# A tensor is unsigned on a CPU where its values need no more than this share of the signed range.
_ONE_SIDED = 0.8
_UNSIGNED_STEPS = 255


@dataclass(frozen=True)
class Int8Values:
    """What calibration found out for an INT8 graph."""

    clips: Mapping[str, float]  # clipping magnitude of each tensor
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest value, for a CPU
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)  # weights that are not at the nearest step


def quantisable(graph: Graph) -> list[str]:
    """Names of the nodes that may run in INT8: convolutions with constant weights, in order."""
    return [
        node.name
        for node in graph.nodes
        if node.op_type in QUANTISABLE
        and node.input[1] in graph.initialisers
        and not (node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1)
    ]


def int8_graph(
    graph: Graph, nodes: Collection[str], values: Int8Values, target: str, *, levels: int, skips: Collection[str]
) -> Graph:
    """The INT8 graph of a target: `qdq_graph`, on a CPU without `skips` and in the form that OpenVINO runs best."""
    if target == "cpu":
        return openvino_form(qdq_graph(graph, nodes, values, levels=levels))
    everywhere = Int8Values(values.clips, rounded=values.rounded)
    return qdq_graph(graph, nodes, everywhere, levels=levels, skips=skips)


def openvino_form(typed: Graph) -> Graph:
    """The same values as a graph with Q/DQ pairs, computed in the way that OpenVINO does correctly and fastest."""
    return pointwise_upsampling(concats_as_sums(typed))


def qdq_graph(
    graph: Graph,
    nodes: Collection[str],
    values: Int8Values | Mapping[str, float],
    *,
    levels: int = INT8_LEVELS,
    skips: Collection[str] = (),
) -> Graph:
    """A copy in which `nodes` are quantised with `values`, or clipping magnitudes alone.

    `levels` below 127 keeps weights small enough that a processor which adds pairs of products in 16 bits cannot
    saturate. `skips` names tensors whose way into a residual Add is quantised as well.
    """
    from onnx import helper

    found = values if isinstance(values, Int8Values) else Int8Values(values)
    typed = graph.copy().model
    by_name = {node.name: node for node in typed.graph.node}
    fresh: dict[str, list[Any]] = {}  # new nodes, by the node they stand before
    taken: dict[str, str] = {}
    for name in sorted(nodes, key=list(by_name).index):
        node = by_name[name]
        source = node.input[0]
        if source not in taken:
            taken[source] = f"{source}/dq"
            fresh.setdefault(name, []).extend(_pair(typed, source, found))
        node.input[0] = taken[source]
        axis = 1 if node.op_type == "ConvTranspose" else 0
        stored = f"{name}/{node.input[1]}"
        nearest, scale = quantise_weights(graph.constant(node.input[1]), axis, levels)
        quantised = found.rounded.get(name, nearest)
        add_constant(typed, f"{stored}/q", quantised)
        add_constant(typed, f"{stored}/scale", scale)
        add_constant(typed, f"{stored}/zero", np.zeros(len(scale), np.int8))
        inputs = [f"{stored}/q", f"{stored}/scale", f"{stored}/zero"]
        fresh.setdefault(name, []).append(
            helper.make_node("DequantizeLinear", inputs, [f"{stored}/dq"], f"{name}/weights/dq", axis=axis)
        )
        node.input[1] = f"{stored}/dq"
    for name in skips:
        for node in typed.graph.node:
            if node.op_type == "Add" and name in node.input and name not in taken:
                taken[name] = f"{name}/dq"
                fresh.setdefault(node.name, []).extend(_pair(typed, name, found))
            if node.op_type == "Add" and name in node.input:
                node.input[list(node.input).index(name)] = taken[name]
    insert_nodes(typed, fresh)
    drop_unused(typed)
    return graph_from_model(typed)


def residual_skips(graph: Graph) -> dict[str, str]:
    """The skip branch of each residual Add: the Add's name and the tensor that goes around its convolutions."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        own = 1 if node.op_type in QUANTISABLE else 0
        reached = max((depth.get(name, 0) for name in node.input if name), default=0) + own
        depth.update(dict.fromkeys(node.output, reached))
    found = {}
    for node in graph.nodes:
        if node.op_type == "Add" and not any(name in graph.initialisers for name in node.input):
            shallow, deep = sorted(node.input, key=lambda name: depth.get(name, 0))
            if depth.get(shallow, 0) < depth.get(deep, 0):
                found[node.name] = shallow
    return found


def quantised_skips(graph: Graph, chosen: Collection[str]) -> list[str]:
    """The skip branches, as in `residual_skips`, of those Adds that close a block whose last convolution is chosen."""
    taken = residual_skips(graph)
    return [
        taken[node.name]
        for node in graph.nodes
        if node.name in taken and any(n in graph.producer and graph.producer[n].name in chosen for n in node.input)
    ]


def quantise_weights(weights: NDArray[Any], axis: int, levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as int8 with one scale per output channel.

    >>> q, scale = quantise_weights(np.array([[1.0, -0.5]], np.float32), 0, 127)
    >>> q.tolist(), float(scale[0] * 127)
    ([[127, -64]], 1.0)
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    peak = np.abs(weights).max(axis=others).astype(np.float32)
    scale = np.where(peak > 0, peak, np.float32(1)) / np.float32(levels)
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
    rounded = np.clip(np.rint(weights / shaped), -levels, levels).astype(np.int8)
    return rounded, scale.astype(np.float32)


def span(values: Int8Values, tensor: str) -> tuple[float, float] | None:
    """The lowest and highest value that an unsigned tensor represents, zero among them; None: it is signed.

    >>> span(Int8Values({"x": 2.0}, {"x": (-0.1, 3.0)}), "x")
    (-0.1, 2.0)
    >>> span(Int8Values({"x": 2.0}, {"x": (-1.9, 3.0)}), "x") is None
    True
    """
    if tensor not in values.spans:
        return None
    (low, high), most = values.spans[tensor], values.clips[tensor]
    low, high = max(min(low, 0.0), -most), min(max(high, 0.0), most)
    return (low, high) if 0 < high - low <= 2 * most * _ONE_SIDED else None


def _pair(model: Any, source: str, values: Int8Values) -> list[Any]:
    from onnx import helper

    ends = span(values, source)
    scale, zero = _unsigned(*ends) if ends else (np.float32(values.clips[source] / INT8_LEVELS), np.int8(0))
    add_constant(model, f"{source}/scale", scale)
    add_constant(model, f"{source}/zero", zero)
    form = [f"{source}/scale", f"{source}/zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *form], [f"{source}/q"], f"{source}/quantise"),
        helper.make_node("DequantizeLinear", [f"{source}/q", *form], [f"{source}/dq"], f"{source}/dequantise"),
    ]


def _unsigned(low: float, high: float) -> tuple[np.float32, np.integer[Any]]:
    """Scale and zero point with which 256 steps reach both ends; zero stays exact."""
    zero = int(np.rint(-low / (high - low) * _UNSIGNED_STEPS))
    scale = max(-low / zero if zero else 0.0, high / (_UNSIGNED_STEPS - zero) if zero < _UNSIGNED_STEPS else 0.0)
    return np.float32(scale), np.uint8(zero)
