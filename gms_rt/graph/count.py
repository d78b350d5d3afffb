"""What a graph costs: floating-point operations, the fewest bytes that must move, parameters; whole and by stage.

Counted are convolutions and matrix products, two operations for each multiply-add; everything else is small and fuses
into them. Foreign graphs are counted as far as their shapes are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.errors import ArtifactError, reason_from_error
from gms_rt.graph.graph import Graph, attribute, stage
from gms_rt.graph.layer_counts import COMPUTE, computes_in_int8, is_dequantised

STAGES = ("input", "encoder", "lmm", "decoder", "output")


@dataclass(frozen=True)
class Work:
    """One inference's work."""

    flop: float  # floating-point operations, whatever the type they are done in
    bytes: float  # weights as stored, and the activations that enter and leave each counted node
    parameters: int  # see `parameter_count`
    int8_share: float  # the part of the operations whose operands are quantised


def work_from_file(path: Path, *, float_bytes: int = 4, batch: int = 1) -> Work:
    """Count the graph in a file. `float_bytes` is what the device keeps of a float (2 under bf16)."""
    return work_from_graph(counted_graph(path, batch=batch), float_bytes)


def work_from_graph(graph: Graph, float_bytes: int = 4) -> Work:
    """Count a graph whose shapes are known as far as they can be."""
    flop = moved = quantised = 0.0
    for node in graph.nodes:
        operations = node_flop(graph, node)
        if not operations:
            continue
        left, right, out = (math.prod(graph.shape[name]) for name in (*node.input[:2], node.output[0]))
        int8 = computes_in_int8(graph, node)
        flop += operations
        quantised += operations if int8 else 0
        moved += (left + out) * (1 if int8 else float_bytes)
        moved += right * (1 if is_dequantised(graph, node.input[1]) else float_bytes)
    return Work(flop, moved, parameter_count(graph.model), quantised / flop if flop else 0.0)


def counted_graph(path: Path, *, batch: int = 1) -> Graph:
    """The graph in a file, foreign or ours, with its shapes as far as they can be known; its weights may be absent."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = batch
        return Graph(onnx.shape_inference.infer_shapes(model))
    except Exception as error:  # protobuf's and onnx's errors have no common root
        raise ArtifactError(f"cannot be counted ({reason_from_error(error)})", where=path) from error


def node_flop(graph: Graph, node: Any) -> int:
    """Floating-point operations of a computing node; 0 for others and where a shape is not known."""
    if node.op_type not in COMPUTE or any(name not in graph.shape for name in (*node.input[:2], node.output[0])):
        return 0
    left, right, out = (graph.shape[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return 2 * math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(left) * math.prod(right[1:])
    return 2 * math.prod(out) * left[-2 if attribute(node, "transA", 0) else -1]


def parameter_count(model: Any) -> int:
    """The weights of a model, foreign or ours: its constants of two dimensions or more, in whatever type."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) > 1)


def stages(graph: Graph) -> list[dict[str, Any]]:
    """Nodes, FLOP and parameters (here with biases and slopes) by stage, in the order of the pipeline."""
    from onnx import TensorProto

    numbers = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)
    rows: dict[str, dict[str, Any]] = {}
    counted: set[str] = set()
    for node in graph.nodes:
        row = rows.setdefault(stage(node.name) or "other", {"nodes": 0, "flop": 0, "parameters": 0})
        row["nodes"] += 1
        row["flop"] += node_flop(graph, node)
        for name in node.input:
            tensor = graph.initialisers.get(name)
            if tensor is None or name in counted or tensor.data_type not in numbers:
                continue
            counted.add(name)
            # Scales and zero points are how weights are stored, not weights.
            if not name.endswith(("/scale", "/zero")):
                row["parameters"] += math.prod(tensor.dims)
    order = [*STAGES, *sorted(set(rows) - set(STAGES))]
    return [{"stage": name, **rows[name]} for name in order if name in rows]
