"""The work in a graph: floating-point operations, and the least bytes that must move.

Counted are convolutions and matrix products, two operations a multiply-add; everything else is small and fuses into
them. Bytes are the weights as stored, plus the activations that enter and leave each counted node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.errors import ArtifactError

_COUNTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class Work:
    """One inference's work; `int8_share` is the part of the operations whose inputs are quantised."""

    flop: float
    bytes: float
    parameters: int
    int8_share: float


def work_of(path: Path, *, float_bytes: int = 4, batch: int = 1) -> Work:
    """Count a graph. `float_bytes` is what the device keeps of a float (2 under bf16)."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = batch
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # protobuf's and onnx's errors have no common root
        raise ArtifactError(f"cannot be counted ({str(error).splitlines()[0]})", where=path) from error
    shapes = {v.name: _dims(v) for v in (*graph.input, *graph.value_info, *graph.output)}
    weights = {t.name: tuple(t.dims) for t in graph.initializer}
    shapes |= weights
    makers = {name: node for node in graph.node for name in node.output}
    flop = moved = quantised = 0.0
    for node, (left, right, out) in _counted(graph.node, shapes):
        operations = _operations(node, left, right, out)
        flop += operations
        is_int8 = _from_dequantize(node.input[0], makers)
        quantised += operations if is_int8 else 0.0
        size = 1 if is_int8 else float_bytes
        moved += (math.prod(left) + math.prod(out)) * size
        moved += math.prod(right) * (1 if _from_dequantize(node.input[1], makers) else float_bytes)
    count = sum(math.prod(dims) for dims in weights.values() if len(dims) > 1)
    return Work(flop, moved, count, quantised / flop if flop else 0.0)


def _counted(nodes: Any, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[Any, tuple[tuple[int, ...], ...]]]:
    for node in nodes:
        if node.op_type in _COUNTED:
            found = [shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0])]
            if all(found) and all(d > 0 for dims in found for d in dims):
                yield node, tuple(found)


def _operations(node: Any, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> float:
    if node.op_type == "Conv":
        return 2.0 * math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return 2.0 * math.prod(left) * math.prod(right[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2.0 * math.prod(out) * left[-2 if transposed else -1]


def _from_dequantize(name: str, makers: dict[str, Any]) -> bool:
    node = makers.get(name)
    return node is not None and node.op_type == "DequantizeLinear"


def _dims(value: Any) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
