"""Exact folds on an ONNX graph: whatever mixes channels point by point joins the convolution before it.

A `Mix` is y = M·x + b at every position. Slices of channels, the mean over channels, affine constants and 1x1
convolutions are mixes. A mix behind a convolution is that convolution with other weights, at image borders too; it
passes through sums and spatial resizing, which are linear and keep constants. In front of a zero-padded convolution
only a pure scale is exact: an offset would have to be in the padding as well, so it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F64
from gms_rt.graph.edit import add_constant, drop_unused
from gms_rt.graph.graph import Graph, attribute

_AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Mix:
    """y = matrix·x + bias at every position."""

    matrix: F64  # outputs × inputs
    bias: F64


@dataclass(frozen=True)
class Affine:
    """y = scale·x + offset, the same for all channels or one value per channel (then 1-D)."""

    scale: F64
    offset: F64


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
        mix = _as_mix(graph, node, channels) if channels else None
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
        return plain and all(_value(graph, i) is not None for i in node.input[1:])
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
    weight = _constant(graph, node.input[1])
    outputs_axis = 0 if node.op_type == "Conv" else 1
    bias = _constant(graph, node.input[2]) if _has_bias(node) else np.zeros(weight.shape[outputs_axis])
    mixed = np.moveaxis(np.tensordot(mix.matrix, weight, axes=(1, outputs_axis)), 0, outputs_axis)
    _set_weights(graph, node, mixed, mix.matrix @ bias + mix.bias)


def _absorb_scale(graph: Graph) -> bool:
    """Fold one affine into the convolution behind it, where borders allow."""
    for node in graph.nodes:
        affine = _as_affine(graph, node)
        if affine is None or graph.uses[node.output[0]] != 1:
            continue
        user = next((n for n in graph.nodes if node.output[0] in n.input), None)
        if user is None or user.op_type != "Conv" or node.output[0] != user.input[0]:
            continue
        if attribute(user, "group", 1) != 1 or any(_value(graph, i) is None for i in user.input[1:]):
            continue
        if np.any(affine.offset != 0) and not _is_unpadded(user):
            continue
        weight = _constant(graph, user.input[1])
        bias = _constant(graph, user.input[2]) if _has_bias(user) else np.zeros(len(weight))
        ones = np.ones(weight.shape[1])
        bias = bias + np.einsum("oikl,i->o", weight, ones * affine.offset)
        _set_weights(graph, user, weight * (ones * affine.scale)[None, :, None, None], bias)
        _bypass(graph, node)
        return True
    return False


def _join_affines(graph: Graph) -> bool:
    """Join two affines in a row, or drop one that does nothing."""
    for node in graph.nodes:
        second = _as_affine(graph, node)
        if second is None or second.scale.ndim or second.offset.ndim:
            continue
        if second.scale == 1 and second.offset == 0:
            _bypass(graph, node)
            return True
        before = graph.producer.get(node.input[0])
        first = _as_affine(graph, before) if before is not None and _is_free(graph, node.input[0]) else None
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
    source = node.input[0] if _value(graph, node.input[0]) is None else node.input[1]
    constant = _store(graph, f"{node.name}/{kind.lower()}", np.asarray(value))
    node.op_type = kind
    del node.input[:]
    node.input.extend([source, constant])


def _as_affine(graph: Graph, node: Any) -> Affine | None:
    """The affine a node is, if its input comes first, its other input is a constant, and x is computed."""
    if node.op_type not in _AFFINE or len(node.input) != 2 or _value(graph, node.input[0]) is not None:
        return None
    constant = _value(graph, node.input[1])
    if constant is None or constant.dtype != np.float32:
        return None
    value = _per_channel(constant)
    if value is None:
        return None
    if node.op_type == "Div":
        if np.any(value == 0):
            return None
        value = 1 / value
    if node.op_type in ("Mul", "Div"):
        return Affine(value, np.asarray(0.0))
    return Affine(np.asarray(1.0), -value if node.op_type == "Sub" else value)


def _per_channel(constant: NDArray[Any]) -> F64 | None:
    """A constant that is one number, or one number per channel of an N×C×H×W value."""
    if constant.size == 1 and constant.ndim <= 4:
        return np.asarray(constant.reshape(()), np.float64)
    if constant.ndim >= 3 and constant.shape[-2:] == (1, 1) and constant.size == constant.shape[-3]:
        return np.asarray(constant.reshape(-1), np.float64)
    return None


def _as_mix(graph: Graph, node: Any, channels: int) -> Mix | None:
    affine = _as_affine(graph, node)
    if affine is not None:
        ones = np.ones(channels)
        return Mix(np.diag(ones * affine.scale), ones * affine.offset)
    if node.op_type == "ReduceMean":
        axes = attribute(node, "axes", None) or (_value(graph, node.input[1]) if len(node.input) > 1 else None)
        if axes is not None and list(axes) == [1] and attribute(node, "keepdims", 1):
            return Mix(np.full((1, channels), 1 / channels), np.zeros(1))
    if node.op_type == "Slice" and len(node.input) >= 4:
        parts = [_value(graph, i) for i in node.input[1:]]
        if all(p is not None and p.size == 1 for p in parts):
            start, end, axis, *step = [int(p.reshape(-1)[0]) for p in parts if p is not None]
            if axis == 1:
                chosen = np.arange(channels)[slice(start, end, *step)]
                return Mix(np.eye(channels)[chosen], np.zeros(len(chosen)))
    if node.op_type == "Conv" and _is_pointwise(graph, node):
        weight = _constant(graph, node.input[1])
        bias = _constant(graph, node.input[2]) if _has_bias(node) else np.zeros(len(weight))
        return Mix(weight[:, :, 0, 0], bias)
    return None


def _is_pointwise(graph: Graph, node: Any) -> bool:
    weight = _value(graph, node.input[1])
    if weight is None or weight.shape[2:] != (1, 1) or attribute(node, "group", 1) != 1:
        return False
    known = not _has_bias(node) or _value(graph, node.input[2]) is not None
    return known and set(attribute(node, "strides", [1])) == {1} and _is_unpadded(node)


def _is_unpadded(node: Any) -> bool:
    automatic = attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return not automatic and not any(attribute(node, "pads", [0]))


def _is_spatial_resize(graph: Graph, node: Any) -> bool:
    mode = attribute(node, "mode", b"nearest")
    how = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    scales = _value(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    # Every interpolated value is a weighted mean whose weights sum to one.
    spatial = scales is not None and scales.size == 4 and list(scales[:2]) == [1, 1]
    return spatial and mode in (b"nearest", b"linear") and how != b"tf_crop_and_resize"


def _channels(graph: Graph, name: str) -> int | None:
    """How many channels a value has, as far as folding needs to know."""
    node = graph.producer.get(name)
    if node is None:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = _value(graph, node.input[1])
        return None if weight is None else int(weight.shape[0 if node.op_type == "Conv" else 1])
    if node.op_type in ("Resize", "Sum", "Add"):
        return _channels(graph, node.input[0])
    return None


def _is_free(graph: Graph, name: str) -> bool:
    """Whether just one node reads a value, so that the value may change."""
    return graph.uses[name] == 1


def _has_bias(node: Any) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _constant(graph: Graph, name: str) -> F64:
    value = _value(graph, name)
    assert value is not None, name
    return np.asarray(value, np.float64)


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


def _value(graph: Graph, name: str) -> NDArray[Any] | None:
    """A constant's value, whether stored or made by a Constant node; None for what is computed."""
    from onnx import numpy_helper

    if name in graph.initialisers:
        return graph.constant(name)
    node = graph.producer.get(name)
    made = attribute(node, "value", None) if node is not None and node.op_type == "Constant" else None
    return None if made is None else np.asarray(numpy_helper.to_array(made))


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
