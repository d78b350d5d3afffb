"""Quantised upsampling as a CPU runs it fastest: a pointwise convolution, then its channels laid out as pixels.

A ConvTranspose whose kernel equals its stride writes every output pixel from one input pixel. It is therefore a 1x1
convolution with a channel for each place in the kernel, and a DepthToSpace. What follows value by value (activation,
quantisation) is done before the values move, so that bytes move and not floats. Weights, scales and sums stay what
they are. OpenVINO runs an INT8 deconvolution slower than an FP32 one, and above a certain size not at all.

OpenVINO gets a quantised DepthToSpace wrong in a graph with a Concat (see `concat_as_sum.py`), so a graph that still
has one is left as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.graph.edit import add_constant, drop_unused, insert_nodes
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.read import graph_from_model

# What works value by value, with constants that hold for the whole tensor.
_PLAIN = ("LeakyRelu", "Relu", "Clip", "Sigmoid", "Tanh", "PRelu", "QuantizeLinear", "DequantizeLinear")


def pointwise_upsampling(typed: Graph) -> Graph:
    """A copy in which quantised upsampling deconvolutions are 1x1 convolutions and shuffles; its results are equal."""
    fitting = [node for node in typed.nodes if _fits(typed, node)]
    if not fitting or any(node.op_type == "Concat" for node in typed.nodes):
        return typed
    model = typed.copy().model
    by_name = {node.name: node for node in model.graph.node}
    before: dict[str, list[Any]] = {}
    behind: dict[str, list[Any]] = {}
    for node in fitting:
        before[node.name] = _as_convolution(typed, model, by_name[node.name])
        last = _moved_behind(typed, by_name, node)
        behind[last.name] = [_shuffle(node, last)]
    insert_nodes(model, before, behind)
    drop_unused(model)
    return graph_from_model(model)


def _fits(typed: Graph, node: Any) -> bool:
    if node.op_type != "ConvTranspose" or attribute(node, "group", 1) != 1:
        return False
    stored = typed.producer.get(node.input[1])
    if stored is None or stored.op_type != "DequantizeLinear" or stored.input[0] not in typed.initialisers:
        return False
    kernel = list(typed.shape[stored.input[0]][2:])
    strides = list(attribute(node, "strides", [1, 1]))
    padded = any([*attribute(node, "pads", []), *attribute(node, "output_padding", [])])
    automatic = attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    dilated = any(step != 1 for step in attribute(node, "dilations", []))
    constant = all(name in typed.initialisers for name in node.input[2:] if name)
    square = len(kernel) == 2 and kernel[0] == kernel[1] > 1
    return square and kernel == strides and constant and not (padded or automatic or dilated)


def _as_convolution(typed: Graph, model: Any, node: Any) -> list[Any]:
    """Turn a fitting ConvTranspose into the Conv that makes every place's channels; returns what goes before it."""
    from onnx import helper

    stored = typed.producer[node.input[1]]
    weights, scale, zero = (typed.constant(name) for name in stored.input)
    inputs, outputs, block = weights.shape[:3]
    places = block * block
    values = {
        "q": weights.transpose(2, 3, 1, 0).reshape(places * outputs, inputs, 1, 1),
        "scale": np.tile(np.broadcast_to(scale, outputs), places),
        "zero": np.tile(np.broadcast_to(zero, outputs), places),
    }
    names = [add_constant(model, f"{node.name}/weights/{name}", value) for name, value in values.items()]
    dequantise = next(other for other in model.graph.node if other.name == stored.name)
    replaced = helper.make_node("DequantizeLinear", names, list(stored.output), stored.name, axis=0)
    dequantise.CopyFrom(replaced)
    first = []
    if len(node.input) > 2 and node.input[2]:
        # Repeated in the graph, not in the file: a model's parameters are the same however it is run.
        times = add_constant(model, f"{node.name}/places", np.array([places], np.int64))
        repeated = f"{node.name}/bias"
        while repeated in typed.initialisers:  # as folding names a bias
            repeated += "_"
        first = [helper.make_node("Tile", [node.input[2], times], [repeated], repeated)]
        node.input[2] = repeated
    node.op_type = "Conv"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("kernel_shape", [1, 1]))
    return first


def _moved_behind(typed: Graph, by_name: dict[str, Any], node: Any) -> Any:
    """The last node whose work is done before the values move; what lies between gets names of its own."""
    tensor, last = node.output[0], by_name[node.name]
    last.output[0] = f"{tensor}/places"
    while (taker := _plain_taker(typed, tensor)) is not None:
        last = by_name[taker.name]
        last.input[0] = f"{tensor}/places"
        tensor = taker.output[0]
        last.output[0] = f"{tensor}/places"
    return last


def _shuffle(node: Any, last: Any) -> Any:
    from onnx import helper

    moved = last.output[0]
    block = int(attribute(node, "strides", [1, 1])[0])
    name = f"{node.name}/shuffle"
    return helper.make_node("DepthToSpace", [moved], [moved.removesuffix("/places")], name, blocksize=block, mode="DCR")


def _plain_taker(typed: Graph, tensor: str) -> Any | None:
    """The one node that takes a tensor value by value, whatever the order of the values."""
    takers = typed.consumers.get(tensor, [])
    if len(takers) != 1 or takers[0].op_type not in _PLAIN or takers[0].input[0] != tensor:
        return None
    others = [name for name in takers[0].input[1:] if name]
    whole = all(name in typed.initialisers and np.prod(typed.shape[name]) == 1 for name in others)
    return takers[0] if whole else None
