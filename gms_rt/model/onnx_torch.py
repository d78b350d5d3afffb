"""An ONNX graph as a torch module, so that gradients flow through it.

It knows the operators that convolutional autoencoders use. Weights become buffers and the nodes run in the graph's
order. An operator or attribute that is not handled is refused by name when the graph is loaded, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import ArtifactError, reason_from_error

Attributes = dict[str, Any]
Value = Tensor | None
Operator = Callable[[Sequence[Any], Attributes], Tensor]


class OnnxModule(nn.Module):
    """Run one graph of one input and one output with torch operators."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx

        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:  # parsing hostile bytes raises whatever protobuf and the checker like
            raise ArtifactError(f"is not a valid ONNX graph ({reason_from_error(error)})", where=path) from error
        graph = model.graph
        weights = {tensor.name: _array(tensor) for tensor in graph.initializer}
        self._program: list[tuple[Operator, list[str], str, Attributes]] = []
        self._fixed: dict[str, list[int] | list[float]] = {}
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                weights[node.output[0]] = _array(attributes["value"])
            elif node.op_type in _OPERATORS and not node.domain and len(node.output) == 1:
                self._program.append((_OPERATORS[node.op_type], list(node.input), node.output[0], attributes))
            else:
                known = ", ".join(sorted(_OPERATORS))
                raise ArtifactError(
                    f"uses the operator '{node.op_type}', which is not handled here",
                    where=f"{path}: {node.name or node.output[0]}",
                    fix=f"export the tokenizer with these only: {known}",
                )
        inputs = [i.name for i in graph.input if i.name not in weights]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ArtifactError("must have one input and one output", where=path)
        self._input, self._output = inputs[0], graph.output[0].name
        self._register(weights)

    def forward(self, x: Tensor) -> Tensor:
        """The graph's output for x."""
        result: Tensor = self._run(x)[self._output]
        return result

    def output_and_read(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The graph's output for x, and what its convolutions read, in the graph's order."""
        values = self._run(x)
        read = [values[inputs[0]] for operator, inputs, _, _ in self._program if operator is _conv]
        return values[self._output], read

    def _run(self, x: Tensor) -> dict[str, Any]:
        """Every value of the graph by name."""
        values: dict[str, Any] = {self._input: x, "": None, **self._fixed}
        values |= {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        for operator, inputs, output, attributes in self._program:
            values[output] = operator([values[name] for name in inputs], attributes)
        return values

    def _register(self, weights: dict[str, Tensor]) -> None:
        # Shapes and scales steer operators and must be plain numbers; everything else is a buffer.
        steering = {
            name
            for operator, inputs, _, _ in self._program
            if operator in (_reshape, _resize)
            for name in inputs[1:]
            if name in weights
        }
        self._buffer_of: dict[str, str] = {}
        for name, value in weights.items():
            if name in steering:
                self._fixed[name] = value.tolist()
            else:
                self._buffer_of[name] = f"weight_{len(self._buffer_of)}"
                self.register_buffer(self._buffer_of[name], value)


def _array(tensor: Any) -> Tensor:
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _padded(x: Tensor, attributes: Attributes, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Pad as ONNX asks: explicit begin and end pads, or SAME at either end."""
    dilations = attributes.get("dilations", [1, 1])
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    if mode in ("NOTSET", "VALID"):
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0]) if mode == "NOTSET" else (0, 0, 0, 0)
    else:
        pads = []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small = total // 2
            pads.append((small, total - small) if mode == "SAME_UPPER" else (total - small, small))
        (top, bottom), (left, right) = pads
    return F.pad(x, (left, right, top, bottom)) if any((top, left, bottom, right)) else x


def _conv(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    groups = attributes.get("group", 1)
    pads = attributes.get("pads", [0, 0, 0, 0])
    if attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and pads[:2] == pads[2:]:
        return F.conv2d(x, weight, bias, stride=strides, padding=pads[:2], dilation=dilations, groups=groups)
    x = _padded(x, attributes, weight.shape[2:], strides)
    return F.conv2d(x, weight, bias, stride=strides, dilation=dilations, groups=groups)


def _conv_transpose(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    pads = attributes.get("pads", [0, 0, 0, 0])
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in attributes or pads[:2] != pads[2:]:
        raise ArtifactError("ConvTranspose is handled with symmetric explicit pads only")
    return F.conv_transpose2d(
        x,
        weight,
        bias,
        stride=attributes.get("strides", [1, 1]),
        padding=pads[:2],
        output_padding=attributes.get("output_padding", [0, 0]),
        groups=attributes.get("group", 1),
        dilation=attributes.get("dilations", [1, 1]),
    )


def _average_pool(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    kernel = attributes["kernel_shape"]
    if any(attributes.get("pads", [])) or attributes.get("ceil_mode", 0) or "auto_pad" in attributes:
        raise ArtifactError("AveragePool is handled without padding only")
    return F.avg_pool2d(inputs[0], kernel, attributes.get("strides", [1] * len(kernel)))


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, shape = inputs
    keep = not attributes.get("allowzero", 0)
    reshaped: Tensor = x.reshape([x.shape[i] if size == 0 and keep else size for i, size in enumerate(shape)])
    return reshaped


def _resize(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    scales = inputs[2] if len(inputs) > 2 else None
    mode = attributes.get("mode", b"nearest")
    how = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if scales is None or list(scales[:2]) != [1, 1]:
        raise ArtifactError("Resize is handled with constant spatial scales only")
    if mode == b"linear" and how == b"half_pixel":
        return F.interpolate(inputs[0], scale_factor=tuple(scales[2:]), mode="bilinear", align_corners=False)
    whole = all(float(scale).is_integer() for scale in scales[2:])
    if mode == b"nearest" and how == b"asymmetric" and attributes.get("nearest_mode") == b"floor" and whole:
        return F.interpolate(inputs[0], scale_factor=tuple(scales[2:]), mode="nearest")
    raise ArtifactError(f"Resize with mode {mode.decode()} and {how.decode()} coordinates is not handled")


def _instance_normalization(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, scale, bias = inputs
    return F.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _sum(inputs: Sequence[Any], _: Attributes) -> Tensor:
    total: Tensor = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return total


_OPERATORS: dict[str, Operator] = {
    "Add": lambda v, _: v[0] + v[1],
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda v, _: v[0] / v[1],
    "InstanceNormalization": _instance_normalization,
    "LeakyRelu": lambda v, a: F.leaky_relu(v[0], a.get("alpha", 0.01)),
    "Mul": lambda v, _: v[0] * v[1],
    "Relu": lambda v, _: F.relu(v[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda v, _: v[0].shape,
    "Sub": lambda v, _: v[0] - v[1],
    "Sum": _sum,
    "Tanh": lambda v, _: torch.tanh(v[0]),
}
