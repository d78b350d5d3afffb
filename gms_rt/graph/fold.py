"""Exact folds on an ONNX graph: whatever mixes channels point by point joins the convolution before it.

A mix, y = M·x + b at every position (`mixes.py`), behind a convolution is that convolution with other weights, at image
borders too; it passes through sums and spatial resizing, which are linear and keep constants. In front of a zero-padded
convolution only a pure scale is exact: an offset would have to be in the padding as well, so it stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.arrays import F64
from gms_rt.graph.edit import add_constant, drop_unused
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.mixes import (
    Mix,
    affine_from_node,
    constant_in_double,
    constant_value,
    has_bias,
    is_unpadded,
    mix_from_node,
)


def fold_exactly(graph: Graph) -> int:
    """Apply every exact fold in place; the number of nodes that went away."""
    before = len(graph.nodes)
    while _join_affines(graph) or _absorb_mix(graph) or _absorb_scale(graph):
        pass
    _drop_idle(graph)
    return before - len(graph.nodes)


def _absorb_mix(graph: Graph) -> bool:
    """Fold one mix into what is before it."""
    for node in graph.nodes:
        if not node.input or not _is_free(graph, node.input[0]):
            continue
        channels = _channels(graph, node.input[0])
        mix = mix_from_node(graph, node, channels) if channels else None
        # A mix that makes more channels than it takes would make the convolution cost more.
        if mix is None or len(mix.matrix) > mix.matrix.shape[1] or not _takes(graph, node.input[0]):
            continue
        _give(graph, node.input[0], mix)
        _bypass(graph, node)
        return True
    return False


def _takes(graph: Graph, name: str) -> bool:
    """Whether everything that makes this value can absorb a mix."""
    node = graph.producer.get(name)
    if node is None or not _is_free(graph, name):
        return False
    if node.op_type in ("Conv", "ConvTranspose"):
        plain = attribute(node, "group", 1) == 1
        return plain and all(constant_value(graph, i) is not None for i in node.input[1:])
    if node.op_type == "Resize":
        return _is_spatial_resize(graph, node) and _takes(graph, node.input[0])
    if node.op_type in ("Sum", "Add"):
        shapes = {_channels(graph, i) for i in node.input}
        return (
            len(set(node.input)) == len(node.input) and len(shapes) == 1 and all(_takes(graph, i) for i in node.input)
        )
    return False


def _give(graph: Graph, name: str, mix: Mix) -> None:
    node = graph.producer[name]
    if node.op_type == "Resize":
        _give(graph, node.input[0], mix)
    elif node.op_type in ("Sum", "Add"):
        for position, source in enumerate(node.input):
            _give(graph, source, mix if position == 0 else Mix(mix.matrix, np.zeros_like(mix.bias)))
    else:
        _into_convolution(graph, node, mix)


def _into_convolution(graph: Graph, node: Any, mix: Mix) -> None:
    weight = constant_in_double(graph, node.input[1])
    outputs_axis = 0 if node.op_type == "Conv" else 1
    bias = constant_in_double(graph, node.input[2]) if has_bias(node) else np.zeros(weight.shape[outputs_axis])
    mixed = np.moveaxis(np.tensordot(mix.matrix, weight, axes=(1, outputs_axis)), 0, outputs_axis)
    _set_weights(graph, node, mixed, mix.matrix @ bias + mix.bias)


def _absorb_scale(graph: Graph) -> bool:
    """Fold one affine into the convolution behind it, where borders allow."""
    for node in graph.nodes:
        affine = affine_from_node(graph, node)
        if affine is None or graph.uses[node.output[0]] != 1:
            continue
        user = next((n for n in graph.nodes if node.output[0] in n.input), None)
        if user is None or user.op_type != "Conv" or node.output[0] != user.input[0]:
            continue
        if attribute(user, "group", 1) != 1 or any(constant_value(graph, i) is None for i in user.input[1:]):
            continue
        if np.any(affine.offset != 0) and not is_unpadded(user):
            continue
        weight = constant_in_double(graph, user.input[1])
        bias = constant_in_double(graph, user.input[2]) if has_bias(user) else np.zeros(len(weight))
        ones = np.ones(weight.shape[1])
        bias = bias + np.einsum("oikl,i->o", weight, ones * affine.offset)
        _set_weights(graph, user, weight * (ones * affine.scale)[None, :, None, None], bias)
        _bypass(graph, node)
        return True
    return False


def _join_affines(graph: Graph) -> bool:
    """Join two affines in a row, or drop one that does nothing."""
    for node in graph.nodes:
        second = affine_from_node(graph, node)
        if second is None or second.scale.ndim or second.offset.ndim:
            continue
        if second.scale == 1 and second.offset == 0:
            _bypass(graph, node)
            return True
        before = graph.producer.get(node.input[0])
        first = affine_from_node(graph, before) if before is not None and _is_free(graph, node.input[0]) else None
        if before is None or first is None or first.scale.ndim or first.offset.ndim:
            continue
        scale, offset = first.scale * second.scale, first.offset * second.scale + second.offset
        pair = before.op_type in ("Mul", "Div") and node.op_type in ("Add", "Sub")
        if pair and offset != 0:
            continue  # already scale, then offset
        if offset == 0 or scale == 1:
            kind, value = ("Mul", scale) if offset == 0 else ("Add", offset)
            _become(graph, node, kind, value)
            _bypass(graph, before)
        else:
            _become(graph, before, "Mul", scale)
            _become(graph, node, "Add", offset)
            graph.refresh()
        return True
    return False


def _become(graph: Graph, node: Any, kind: str, value: F64) -> None:
    source = node.input[0] if constant_value(graph, node.input[0]) is None else node.input[1]
    constant = _store(graph, f"{node.name}/{kind.lower()}", np.asarray(value))
    node.op_type = kind
    del node.input[:]
    node.input.extend([source, constant])


def _is_spatial_resize(graph: Graph, node: Any) -> bool:
    mode = attribute(node, "mode", b"nearest")
    how = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    scales = constant_value(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    # Every interpolated value is a weighted mean whose weights sum to one.
    spatial = scales is not None and scales.size == 4 and list(scales[:2]) == [1, 1]
    return spatial and mode in (b"nearest", b"linear") and how != b"tf_crop_and_resize"


def _channels(graph: Graph, name: str) -> int | None:
    """How many channels a value has, as far as folding needs to know."""
    node = graph.producer.get(name)
    if node is None:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = constant_value(graph, node.input[1])
        return None if weight is None else int(weight.shape[0 if node.op_type == "Conv" else 1])
    if node.op_type in ("Resize", "Sum", "Add"):
        return _channels(graph, node.input[0])
    return None


def _is_free(graph: Graph, name: str) -> bool:
    """Whether just one node reads a value, so that the value may change."""
    return graph.uses[name] == 1


def _set_weights(graph: Graph, node: Any, weight: F64, bias: F64) -> None:
    stem = node.name or node.output[0]
    inputs = [node.input[0], _store(graph, f"{stem}/weight", weight), _store(graph, f"{stem}/bias", bias)]
    del node.input[:]
    node.input.extend(inputs)
    assert list(attribute(node, "kernel_shape", weight.shape[2:])) == list(weight.shape[2:])


def _replace(node: Any, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new


def _store(graph: Graph, name: str, value: F64) -> str:
    """Add a float32 constant under a new name."""
    while name in graph.initialisers or name in graph.producer:
        name += "_"
    add_constant(graph.model, name, value.astype(np.float32))
    graph.initialisers[name] = graph.model.graph.initializer[-1]
    return name


def _bypass(graph: Graph, node: Any) -> None:
    """Remove a node; who read its output reads its first input."""
    source, gone = node.input[0], node.output[0]
    if gone in {output.name for output in graph.model.graph.output}:  # a graph's output keeps its name
        graph.producer[source].output[0] = gone
        source, gone = gone, source
    for other in graph.nodes:
        _replace(other, gone, source)
    graph.nodes.remove(node)
    graph.refresh()


def _drop_idle(graph: Graph) -> None:
    """Remove nodes and initialisers that nothing reads any more, and the shapes of values that may have changed."""
    while idle := [node for node in graph.nodes if not any(graph.uses[output] for output in node.output)]:
        for node in idle:
            graph.nodes.remove(node)
        graph.refresh()
    drop_unused(graph.model)
    del graph.model.graph.value_info[:]
    graph.refresh()
