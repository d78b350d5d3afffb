"""Foreign graphs made plain: what is known before the first image is computed once, and batch norms become weights.

    fold_constants     shapes that are fixed, and whatever is computed from constants alone, become constants
    fold_batch_norms   into the convolution before it; elsewhere a scale and an offset per channel
    drop_idle_nodes    Identity, Dropout in inference, Casts that change no type

Exporters leave all of these where a graph was exported for any size. All work on the graph in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.graph.edit import add_constant, drop_unused, replace_nodes
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.read import graph_from_model

_ROUNDS = 24  # each folds what the one before it made constant; deep chains of shapes need a few
_LARGEST = 1 << 24  # elements of a constant that is computed here
_NEVER = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
          "If", "Loop", "Scan", "QuantizeLinear", "DequantizeLinear")  # fmt: skip


def simplify_graph(model: Any) -> Graph:
    """A model whose input shapes are fixed, as a graph with every shape inferred and nothing left to fold."""
    graph = graph_from_model(model)
    for _ in range(_ROUNDS):
        if not drop_idle_nodes(graph) + fold_constants(graph):
            break
        graph = graph_from_model(graph.model)
    fold_batch_norms(graph)
    _drop_unread(graph)
    return graph_from_model(graph.model)


def fold_constants(graph: Graph) -> int:
    """Replace nodes whose results are known by constants; how many."""
    kept, folded = [], 0
    for node in graph.nodes:
        values = _known_results(graph, node)
        if values is None:
            kept.append(node)
            continue
        folded += 1
        for name, value in zip(node.output, values, strict=False):
            if name:
                add_constant(graph.model, name, value)
                graph.initialisers[name] = graph.model.graph.initializer[-1]
    replace_nodes(graph.model, kept)
    graph.refresh()
    return folded


def drop_idle_nodes(graph: Graph) -> int:
    """Remove nodes that hand on what they take; how many. One that makes an output of the graph stays."""
    outputs = {output.name for output in graph.model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        if _is_idle(graph, node) and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(graph.model, kept)
    graph.refresh()
    return len(renamed)


def fold_batch_norms(graph: Graph) -> int:
    """Bring every BatchNormalization into the convolution before it, or make it a product and a sum; how many."""
    from onnx import helper

    kept: list[Any] = []
    count = 0
    for node in graph.nodes:
        constant = all(name in graph.initialisers for name in node.input[1:])
        if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0) or not constant:
            kept.append(node)
            continue
        count += 1
        gain, offset, mean, variance = (graph.constant(name).astype(np.float64) for name in node.input[1:5])
        gain = gain / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        offset = offset - mean * gain
        maker = graph.producer.get(node.input[0])
        if maker is not None and graph.uses[node.input[0]] == 1 and _scale_convolution(graph, maker, gain, offset):
            maker.output[0] = node.output[0]
            continue
        shape = [-1, *[1] * (len(graph.shape[node.input[0]]) - 2)]
        by = add_constant(graph.model, f"{node.name}/gain", gain.reshape(shape).astype(np.float32))
        add = add_constant(graph.model, f"{node.name}/offset", offset.reshape(shape).astype(np.float32))
        kept.append(helper.make_node("Mul", [node.input[0], by], [f"{node.name}/scaled"], f"{node.name}/scale"))
        kept.append(helper.make_node("Add", [f"{node.name}/scaled", add], [node.output[0]], f"{node.name}/shift"))
    replace_nodes(graph.model, kept)
    drop_unused(graph.model)
    graph.refresh()
    return count


def _drop_unread(graph: Graph) -> None:
    """Remove nodes whose results nothing takes, such as heads that are not asked for."""
    while True:
        read = [node for node in graph.nodes if any(graph.uses[name] for name in node.output if name)]
        if len(read) == len(graph.nodes):
            break
        replace_nodes(graph.model, read)
        graph.refresh()
    drop_unused(graph.model)
    graph.refresh()


def _known_results(graph: Graph, node: Any) -> list[NDArray[Any]] | None:
    """What a node gives, where that is known already."""
    if node.op_type in _NEVER or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in ("Shape", "Size") and node.input[0] in graph.shape:
        return [_shape_result(node, graph.shape[node.input[0]])]
    if not all(name in graph.initialisers for name in node.input if name):
        return None
    if any(np.prod(graph.shape.get(name, (1,)), dtype=np.int64) > _LARGEST for name in node.output):
        return None
    return _computed(graph, node)


def _shape_result(node: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64), np.int64)
    start, end = attribute(node, "start", 0), attribute(node, "end", len(shape))
    return np.asarray(shape[start:end], np.int64)


def _computed(graph: Graph, node: Any) -> list[NDArray[Any]] | None:
    """What a node makes of constants, by ONNX's own reference; None where that does not know it."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    inputs = [helper.make_empty_tensor_value_info(name) for name in names]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    body = helper.make_graph([node], "constant", inputs, outputs)
    opsets = [helper.make_opsetid("", graph.opset)]
    try:
        found = ReferenceEvaluator(helper.make_model(body, opset_imports=opsets)).run(
            None, {name: graph.constant(name) for name in names}
        )
    except Exception:  # an operator, type or version that the reference lacks: the node stays, as it was
        return None
    values = iter(found)
    results = [np.asarray(next(values)) if name else np.zeros(0) for name in node.output]
    return results if all(value.dtype != object and value.size <= _LARGEST for value in results) else None


def _is_idle(graph: Graph, node: Any) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = node.input[2] if len(node.input) > 2 else ""
        still = not training or (training in graph.initialisers and not graph.constant(training).any())
        return bool(still and not (len(node.output) > 1 and graph.uses[node.output[1]]))
    return bool(node.op_type == "Cast" and graph.dtype.get(node.input[0], 0) == attribute(node, "to", -1))


def _scale_convolution(graph: Graph, node: Any, gain: NDArray[Any], offset: NDArray[Any]) -> bool:
    """Multiply a convolution's outputs by `gain` and add `offset`; False where its weights are not constant."""
    if node.op_type not in ("Conv", "ConvTranspose") or any(name not in graph.initialisers for name in node.input[1:]):
        return False
    weight = graph.constant(node.input[1]).astype(np.float64)
    if weight.ndim != 4:
        return False
    if node.op_type == "Conv":
        weight = weight * gain[:, None, None, None]
    else:  # inputs × outputs of a group: the groups follow each other in the inputs
        groups = attribute(node, "group", 1)
        split = weight.reshape(groups, -1, *weight.shape[1:])
        weight = (split * gain.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)
    bias = graph.constant(node.input[2]).astype(np.float64) if len(node.input) > 2 else np.zeros(len(gain))
    # The weight's name tells the module that a convolution belongs to, so the new one keeps it.
    stem, ending = node.input[1].removesuffix(".weight"), ".weight" if node.input[1].endswith(".weight") else ""
    stem = f"{stem}+norm"
    while f"{stem}{ending}" in graph.initialisers:
        stem += "_"
    names = []
    for name, value in ((f"{stem}{ending}", weight), (f"{stem}.bias", bias * gain + offset)):
        names.append(add_constant(graph.model, name, value.astype(np.float32)))
        graph.initialisers[name] = graph.model.graph.initializer[-1]
    del node.input[1:]
    node.input.extend(names)
    return True
