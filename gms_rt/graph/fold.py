"""Exact folds on an ONNX graph: whatever mixes channels point by point joins the convolution before it.

A `Mix` is y = M·x + b at every position. Slices of channels, the mean over channels, affine constants and 1x1
convolutions are mixes. A mix behind a convolution is that convolution with other weights, at image borders too; it
passes through sums and spatial resizing, which are linear and keep constants. In front of a zero-padded convolution
only a pure scale is exact: an offset would have to be in the padding as well, so it stays.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Mix:
    """y = matrix·x + bias at every position."""

    matrix: F64  # outputs × inputs
    bias: F64


@dataclass(frozen=True)
class Affine:
    """y = scale·x + offset, the same for all channels or one value a channel (then 1-D)."""

    scale: F64
    offset: F64


class Graph:
    """A model's graph with its initialisers as arrays, editable in place."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._onnx = onnx
        self.graph = model.graph
        self.values = {t.name: t for t in self.graph.initializer}
        self.refresh()

    def refresh(self) -> None:
        """Read the edges again after an edit."""
        self.producer = {output: node for node in self.graph.node for output in node.output}
        uses = Counter(name for node in self.graph.node for name in node.input)
        uses.update(output.name for output in self.graph.output)
        self.uses = uses

    def array(self, name: str) -> NDArray[Any] | None:
        """A constant's value, or None for what is computed."""
        tensor = self.values.get(name)
        if tensor is not None:
            return np.asarray(self._onnx.numpy_helper.to_array(tensor))
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            value: NDArray[Any] = self._onnx.numpy_helper.to_array(node.attribute[0].t)
            return value
        return None

    def store(self, name: str, value: F64) -> str:
        """Add a float32 initialiser under a new name."""
        unique = name
        while unique in self.values or unique in self.producer:
            unique += "_"
        tensor = self._onnx.numpy_helper.from_array(value.astype(np.float32), unique)
        self.graph.initializer.append(tensor)
        self.values[unique] = self.graph.initializer[-1]
        return unique

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes as Python values."""
        return {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}

    def bypass(self, node: Any) -> None:
        """Remove a node; who read its output reads its first input."""
        source, gone = node.input[0], node.output[0]
        outputs = {output.name for output in self.graph.output}
        if gone in outputs:  # a graph's output keeps its name
            self.producer[source].output[0] = gone
            for other in self.graph.node:
                _replace(other, source, gone)
        else:
            for other in self.graph.node:
                _replace(other, gone, source)
        self.graph.node.remove(node)
        self.refresh()


def fold(model: Any) -> int:
    """Apply every exact fold in place; the number of nodes that went away."""
    graph = Graph(model)
    before = len(graph.graph.node)
    while _join_affines(graph) or _absorb_mix(graph) or _absorb_scale(graph):
        pass
    _drop_unused(graph)
    return before - len(graph.graph.node)


def _absorb_mix(graph: Graph) -> bool:
    """Fold one mix into what is before it."""
    for node in graph.graph.node:
        if not node.input or not _is_free(graph, node.input[0]):
            continue
        channels = _channels(graph, node.input[0])
        mix = _as_mix(graph, node, channels) if channels else None
        # A mix that makes more channels than it takes would make the convolution dearer.
        if mix is None or len(mix.matrix) > mix.matrix.shape[1] or not _takes(graph, node.input[0]):
            continue
        _give(graph, node.input[0], mix)
        graph.bypass(node)
        return True
    return False


def _takes(graph: Graph, name: str) -> bool:
    """Whether everything that makes this value can absorb a mix."""
    node = graph.producer.get(name)
    if node is None or not _is_free(graph, name):
        return False
    if node.op_type in ("Conv", "ConvTranspose"):
        plain = graph.attributes(node).get("group", 1) == 1
        return plain and all(graph.array(i) is not None for i in node.input[1:])
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
    for node in graph.graph.node:
        affine = _as_affine(graph, node)
        if affine is None or graph.uses[node.output[0]] != 1:
            continue
        user = next((n for n in graph.graph.node if node.output[0] in n.input), None)
        if user is None or user.op_type != "Conv" or node.output[0] != user.input[0]:
            continue
        if graph.attributes(user).get("group", 1) != 1 or any(graph.array(i) is None for i in user.input[1:]):
            continue
        if np.any(affine.offset != 0) and not _is_unpadded(graph, user):
            continue
        weight = _constant(graph, user.input[1])
        bias = _constant(graph, user.input[2]) if _has_bias(user) else np.zeros(len(weight))
        ones = np.ones(weight.shape[1])
        bias = bias + np.einsum("oikl,i->o", weight, ones * affine.offset)
        _set_weights(graph, user, weight * (ones * affine.scale)[None, :, None, None], bias)
        graph.bypass(node)
        return True
    return False


def _join_affines(graph: Graph) -> bool:
    """Join two affines in a row, or drop one that does nothing."""
    for node in graph.graph.node:
        second = _as_affine(graph, node)
        if second is None or second.scale.ndim or second.offset.ndim:
            continue
        if second.scale == 1 and second.offset == 0:
            graph.bypass(node)
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
            graph.bypass(before)
        else:
            _become(graph, before, "Mul", scale)
            _become(graph, node, "Add", offset)
            graph.refresh()
        return True
    return False


def _become(graph: Graph, node: Any, kind: str, value: F64) -> None:
    source = node.input[0] if graph.array(node.input[0]) is None else node.input[1]
    constant = graph.store(f"{node.name}/{kind.lower()}", np.asarray(value))
    node.op_type = kind
    del node.input[:]
    node.input.extend([source, constant])


def _as_affine(graph: Graph, node: Any) -> Affine | None:
    """The affine a node is, if its input comes first, its other input is a constant, and x is no constant."""
    if node.op_type not in _AFFINE or len(node.input) != 2 or graph.array(node.input[0]) is not None:
        return None
    constant = graph.array(node.input[1])
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
    """A constant that is one number, or one number a channel of an N×C×H×W value."""
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
    attributes = graph.attributes(node)
    if node.op_type == "ReduceMean":
        axes = attributes.get("axes") or (graph.array(node.input[1]) if len(node.input) > 1 else None)
        if axes is not None and list(axes) == [1] and attributes.get("keepdims", 1):
            return Mix(np.full((1, channels), 1 / channels), np.zeros(1))
    if node.op_type == "Slice" and len(node.input) >= 4:
        parts = [graph.array(i) for i in node.input[1:]]
        if all(p is not None and p.size == 1 for p in parts):
            start, end, axis, *step = [int(p.reshape(-1)[0]) for p in parts if p is not None]
            if axis == 1:
                chosen = np.arange(channels)[slice(start, end, *step)]
                return Mix(np.eye(channels)[chosen], np.zeros(len(chosen)))
    if node.op_type == "Conv" and _is_pointwise(graph, node, attributes):
        weight = _constant(graph, node.input[1])
        bias = _constant(graph, node.input[2]) if _has_bias(node) else np.zeros(len(weight))
        return Mix(weight[:, :, 0, 0], bias)
    return None


def _is_pointwise(graph: Graph, node: Any, attributes: dict[str, Any]) -> bool:
    weight = graph.array(node.input[1])
    if weight is None or weight.shape[2:] != (1, 1) or attributes.get("group", 1) != 1:
        return False
    known = not _has_bias(node) or graph.array(node.input[2]) is not None
    return known and set(attributes.get("strides", [1])) == {1} and _is_unpadded(graph, node)


def _is_unpadded(graph: Graph, node: Any) -> bool:
    attributes = graph.attributes(node)
    automatic = attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return not automatic and not any(attributes.get("pads", [0]))


def _is_spatial_resize(graph: Graph, node: Any) -> bool:
    mode = graph.attributes(node).get("mode", b"nearest")
    how = graph.attributes(node).get("coordinate_transformation_mode", b"half_pixel")
    scales = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    # Every interpolated value is a weighted mean whose weights sum to one.
    spatial = scales is not None and scales.size == 4 and list(scales[:2]) == [1, 1]
    return spatial and mode in (b"nearest", b"linear") and how != b"tf_crop_and_resize"


def _channels(graph: Graph, name: str) -> int | None:
    """How many channels a value has, as far as folding needs to know."""
    node = graph.producer.get(name)
    if node is None:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = graph.array(node.input[1])
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
    value = graph.array(name)
    assert value is not None, name
    return np.asarray(value, np.float64)


def _set_weights(graph: Graph, node: Any, weight: F64, bias: F64) -> None:
    stem = node.name or node.output[0]
    inputs = [node.input[0], graph.store(f"{stem}/weight", weight), graph.store(f"{stem}/bias", bias)]
    del node.input[:]
    node.input.extend(inputs)
    for attribute in node.attribute:
        if attribute.name == "kernel_shape":
            assert list(attribute.ints) == list(weight.shape[2:])


def _replace(node: Any, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new


def _drop_unused(graph: Graph) -> None:
    """Remove initialisers that no node reads any more, and shape notes of values that are gone."""
    changed = True
    while changed:
        idle = [n for n in graph.graph.node if not any(graph.uses[o] for o in n.output)]
        for node in idle:
            graph.graph.node.remove(node)
        graph.refresh()
        changed = bool(idle)
    for field in (graph.graph.initializer, graph.graph.value_info):
        kept = [t for t in field if (graph.uses[t.name] if field is graph.graph.initializer else False)]
        del field[:]
        field.extend(kept)
