"""Concat as a sum of padded parts: works around a bug of OpenVINO's quantisation.

OpenVINO 2026.4 gets some quantised graphs wrong that contain a Concat anywhere: with one present, its low-precision
pass aligns the ranges around everything that merely moves values (joining, shuffling, pooling) and loses some on the
way. A Concat straight before a quantised convolution is enough, or a DepthToSpace between two. ONNX Runtime, OpenVINO
without that pass, and OpenVINO without the Concat agree with each other. Parts padded with zeros to the whole's size
and added up are that very tensor, and at latent resolution they cost next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.graph.edit import add_constant, replace_nodes
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.read import graph_from_model

_FLOAT = 1  # TensorProto.FLOAT


def concats_as_sums(typed: Graph) -> Graph:
    """A copy whose Concats of floats are sums; those that join images of a batch stay, as do those of integers."""
    concats = {node.name for node in typed.nodes if node.op_type == "Concat" and _paddable(typed, node)}
    if not concats:
        return typed
    model = typed.copy().model
    replace_nodes(
        model,
        (new for node in typed.nodes for new in (_as_sum(typed, model, node) if node.name in concats else [node])),
    )
    return graph_from_model(model)


def _paddable(typed: Graph, node: Any) -> bool:
    known = all(name in typed.shape for name in node.input)
    floats = typed.dtype.get(node.output[0]) == _FLOAT
    return known and floats and int(attribute(node, "axis", 0)) % len(typed.shape[node.input[0]]) != 0


def _as_sum(typed: Graph, model: Any, node: Any) -> list[Any]:
    from onnx import helper

    rank = len(typed.shape[node.input[0]])
    axis = int(attribute(node, "axis", 0)) % rank
    sizes = [typed.shape[name][axis] for name in node.input]
    parts = []
    for number, name in enumerate(node.input):
        pad = np.zeros(2 * rank, np.int64)
        pad[axis], pad[rank + axis] = sum(sizes[:number]), sum(sizes[number + 1 :])
        own = f"{node.name}/padded/{number}"
        pads = add_constant(model, f"{node.name}/pads/{number}", pad)
        parts.append(helper.make_node("Pad", [name, pads], [own], own))
    return [*parts, helper.make_node("Sum", [part.output[0] for part in parts], list(node.output), node.name)]
