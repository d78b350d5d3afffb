"""Even out the channels of a tensor before it is quantised with one scale.

An INT8 activation has one scale for all its channels, so a channel a hundred times smaller than another is left with
one or two steps. Where the tensor is made by a convolution or a per-channel affine and passes only operations that
commute with positive factors (LeakyReLU, PReLU, pooling, resizing), each channel can be divided by a factor there and
multiplied by it in the weights of the convolutions that take it. The factors are powers of two: multiplying by them
is exact, so the FP32 graph's values stay what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.graph.edit import drop_unused
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.read import graph_from_model
from gms_rt.precision.ranges import channel_peaks

_COMMUTING = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# No channel is moved further than this from the others: beyond it its values no longer matter.
_FURTHEST = 6
# Images that decide: a factor of two is all the resolution there is.
_IMAGES = 16


@dataclass(frozen=True)
class Link:
    """A tensor whose channels may be scaled: the constants that make it, and the convolutions that take it."""

    tensor: str
    makers: tuple[tuple[str, int, int], ...]  # node, place of the constant among its inputs, channel axis
    takers: tuple[str, ...]


def links(graph: Graph, candidates: Collection[str]) -> list[Link]:
    """The inputs of candidates whose channels can be scaled exactly, in graph order."""
    found = []
    for tensor in dict.fromkeys(node.input[0] for node in graph.nodes if node.name in candidates):
        takers = graph.consumers.get(tensor, [])
        makers = _makers(graph, tensor)
        if makers and takers and all(_scalable(graph, node, tensor) for node in takers):
            found.append(Link(tensor, makers, tuple(node.name for node in takers)))
    return found


def exponents(graph: Graph, found: Collection[Link], images: U8) -> dict[str, list[int]]:
    """Powers of two by tensor and channel, from what the images put through it and from the weights that take it.

    Half of a channel's excess is left to the activation and half goes into the weights, which are quantised as well.
    """
    if not found:
        return {}
    nodes = {node.name: node for node in graph.nodes}
    some = images[np.linspace(0, len(images) - 1, min(_IMAGES, len(images))).astype(int)]
    peaks = channel_peaks(graph, [link.tensor for link in found], some)
    chosen = {}
    for link in found:
        weights = np.max([_largest_weights(graph, nodes[name]) for name in link.takers], axis=0)
        peak = peaks[link.tensor]
        live = (peak > 0) & (weights > 0)
        if not live.any():
            continue
        factor = np.zeros(len(peak))
        factor[live] = 0.5 * (np.log2(peak[live]) - np.log2(weights[live]))
        factor[live] -= np.median(factor[live])
        steps = np.clip(np.rint(factor), -_FURTHEST, _FURTHEST).astype(int)
        if steps.any():
            chosen[link.tensor] = [int(step) for step in steps]
    return chosen


def equalise(graph: Graph, steps: Mapping[str, list[int]]) -> Graph:
    """A copy with channel c of each tensor divided by 2**steps[c]; its results are those of the graph."""
    if not steps:
        return graph
    from onnx import numpy_helper

    model = graph.copy().model
    nodes = {node.name: node for node in model.graph.node}
    values = {tensor.name: np.asarray(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    every = {node.name for node in graph.nodes if node.op_type in _CONVOLUTIONS}
    for link in links(graph, every):
        if link.tensor not in steps:
            continue
        factor = np.exp2(np.asarray(steps[link.tensor], np.float32))
        for name, place, axis in link.makers:
            _rescale(model, values, nodes[name], place, axis, 1 / factor)
        for name in link.takers:
            _rescale(model, values, nodes[name], 1, 1 if nodes[name].op_type == "Conv" else 0, factor)
    drop_unused(model)
    return graph_from_model(model)


def _makers(graph: Graph, tensor: str) -> tuple[tuple[str, int, int], ...]:
    """The constants to divide so that the tensor's channels are divided; none if that cannot be done exactly."""
    node = graph.producer.get(tensor)
    while node is not None and node.op_type in _COMMUTING:
        source = node.input[0]
        if len(graph.consumers[source]) != 1 or len(graph.shape.get(source, ())) != 4 or not _by_channel(graph, node):
            return ()
        node = graph.producer.get(source)
    if node is None:
        return ()
    if node.op_type in _CONVOLUTIONS:
        constant = all(name in graph.initialisers for name in node.input[1:] if name)
        if not constant or attribute(node, "group", 1) != 1:
            return ()
        weights = (node.name, 1, 0 if node.op_type == "Conv" else 1)
        return (weights, (node.name, 2, 0)) if len(node.input) > 2 and node.input[2] else (weights,)
    return _affine(graph, node)


def _affine(graph: Graph, node: Any) -> tuple[tuple[str, int, int], ...]:
    """A product with one constant a channel, with or without a sum behind it: the end of a group normalisation."""
    found: list[tuple[str, int, int]] = []
    if node.op_type == "Add":
        place = _channel_constant(graph, node)
        if place is None:
            return ()
        found.append((node.name, place, 0))
        before = graph.producer.get(node.input[1 - place])
        if before is None or len(graph.consumers[node.input[1 - place]]) != 1:
            return ()
        node = before
    place = _channel_constant(graph, node) if node.op_type == "Mul" else None
    return (*found, (node.name, place, 0)) if place is not None else ()


def _channel_constant(graph: Graph, node: Any) -> int | None:
    channels = graph.shape.get(node.output[0], (0, 0))
    for place, name in enumerate(node.input):
        shape = graph.shape.get(name, ()) if name in graph.initialisers else ()
        if len(channels) == 4 and shape == (channels[1], 1, 1):
            return place
    return None


def _by_channel(graph: Graph, node: Any) -> bool:
    if node.op_type == "PRelu":
        return node.input[1] in graph.initialisers
    return node.op_type != "Resize" or graph.shape[node.input[0]][1] == graph.shape[node.output[0]][1]


def _scalable(graph: Graph, node: Any, tensor: str) -> bool:
    whole = node.op_type in _CONVOLUTIONS and node.input[0] == tensor and attribute(node, "group", 1) == 1
    return bool(whole and node.input[1] in graph.initialisers)


def _largest_weights(graph: Graph, node: Any) -> NDArray[np.float64]:
    """The largest weight on each input channel, relative to its output channel's largest."""
    weights = np.abs(graph.constant(node.input[1])).astype(np.float64)
    if node.op_type == "ConvTranspose":
        weights = weights.swapaxes(0, 1)
    flat = weights.reshape(*weights.shape[:2], -1).max(2)
    top = flat.max(1, keepdims=True)
    return np.asarray((flat / np.where(top > 0, top, 1)).max(0))


def _rescale(model: Any, values: dict[str, Any], node: Any, place: int, axis: int, factor: NDArray[Any]) -> None:
    from onnx import numpy_helper

    value = values[node.input[place]]
    shape = [1] * value.ndim
    shape[axis] = -1
    fresh = f"{node.name}/{place}/equalised"
    while fresh in values:
        fresh += "_"
    values[fresh] = value * factor.reshape(shape).astype(value.dtype)
    model.graph.initializer.append(numpy_helper.from_array(values[fresh], fresh))
    node.input[place] = fresh
