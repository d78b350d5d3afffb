"""Nodes read as mixes of channels: y = M·x + b at every position.

Slices of channels, the mean over channels, affine constants and 1x1 convolutions are mixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F64
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


def affine_from_node(graph: Graph, node: Any) -> Affine | None:
    """The affine a node is, if its input comes first, its other input is a constant, and x is computed."""
    if node.op_type not in _AFFINE or len(node.input) != 2 or constant_value(graph, node.input[0]) is not None:
        return None
    constant = constant_value(graph, node.input[1])
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


def mix_from_node(graph: Graph, node: Any, channels: int) -> Mix | None:
    """The mix a node is of so many channels, if it is one."""
    affine = affine_from_node(graph, node)
    if affine is not None:
        ones = np.ones(channels)
        return Mix(np.diag(ones * affine.scale), ones * affine.offset)
    if node.op_type == "ReduceMean":
        axes = attribute(node, "axes", None) or (constant_value(graph, node.input[1]) if len(node.input) > 1 else None)
        if axes is not None and list(axes) == [1] and attribute(node, "keepdims", 1):
            return Mix(np.full((1, channels), 1 / channels), np.zeros(1))
    if node.op_type == "Slice" and len(node.input) >= 4:
        parts = [constant_value(graph, i) for i in node.input[1:]]
        if all(p is not None and p.size == 1 for p in parts):
            start, end, axis, *step = [int(p.reshape(-1)[0]) for p in parts if p is not None]
            if axis == 1:
                chosen = np.arange(channels)[slice(start, end, *step)]
                return Mix(np.eye(channels)[chosen], np.zeros(len(chosen)))
    if node.op_type == "Conv" and _is_pointwise(graph, node):
        weight = constant_in_double(graph, node.input[1])
        bias = constant_in_double(graph, node.input[2]) if has_bias(node) else np.zeros(len(weight))
        return Mix(weight[:, :, 0, 0], bias)
    return None


def _is_pointwise(graph: Graph, node: Any) -> bool:
    weight = constant_value(graph, node.input[1])
    if weight is None or weight.shape[2:] != (1, 1) or attribute(node, "group", 1) != 1:
        return False
    known = not has_bias(node) or constant_value(graph, node.input[2]) is not None
    return known and set(attribute(node, "strides", [1])) == {1} and is_unpadded(node)


def is_unpadded(node: Any) -> bool:
    """Whether a convolution adds nothing around its input."""
    automatic = attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return not automatic and not any(attribute(node, "pads", [0]))


def has_bias(node: Any) -> bool:
    """Whether a convolution has a bias."""
    return len(node.input) > 2 and bool(node.input[2])


def constant_in_double(graph: Graph, name: str) -> F64:
    """The value of what is known to be a constant, to compute with."""
    value = constant_value(graph, name)
    assert value is not None, name
    return np.asarray(value, np.float64)


def constant_value(graph: Graph, name: str) -> NDArray[Any] | None:
    """A constant's value, whether stored or made by a Constant node; None for what is computed."""
    from onnx import numpy_helper

    if name in graph.initialisers:
        return graph.constant(name)
    node = graph.producer.get(name)
    made = attribute(node, "value", None) if node is not None and node.op_type == "Constant" else None
    return None if made is None else np.asarray(numpy_helper.to_array(made))
