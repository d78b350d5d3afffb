"""Layers by type: what is really in a typed graph, and whether that is what was asked for.

The graph's counts (`census` in `engine.json`) say how layers are typed; the runtime's say in which arithmetic a CPU ran
them. They are kept apart: a CPU can run an FP16 graph in FP32, and then says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph

COMPUTE = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def layer_counts(graph: Graph) -> dict[str, Any]:
    """Types in a graph: computing nodes by type, all nodes by type, bytes of weights by type, Q/DQ pairs."""
    compute: dict[str, Counter[str]] = {}
    nodes: Counter[str] = Counter()
    for node in graph.nodes:
        kind = compute_type(graph, node)
        nodes[kind] += 1
        if node.op_type in COMPUTE:
            compute.setdefault(node.op_type, Counter())[kind] += 1
    weights: Counter[str] = Counter()
    for tensor in graph.model.graph.initializer:
        weights[_name(tensor.data_type)] += len(tensor.raw_data)
    return {
        "opset": graph.opset,
        "compute": {op: dict(sorted(compute[op].items())) for op in sorted(compute)},
        "nodes": dict(sorted(nodes.items())),
        "weights_bytes": dict(sorted(weights.items())),
        "qdq_pairs": sum(node.op_type == "QuantizeLinear" for node in graph.nodes),
    }


def compute_type(graph: Graph, node: Any) -> str:
    """The type in which a node computes."""
    return "int8" if computes_in_int8(graph, node) else _name(graph.dtype.get(node.output[0], 0))


def computes_in_int8(graph: Graph, node: Any) -> bool:
    """Whether both operands of a computing node are quantised."""
    return node.op_type in COMPUTE and all(is_dequantised(graph, name) for name in node.input[:2])


def is_dequantised(graph: Graph, tensor: str) -> bool:
    """Whether a tensor comes out of a DequantizeLinear."""
    maker = graph.producer.get(tensor)
    while maker is not None and maker.op_type == "DepthToSpace":  # moves values, whatever their type
        maker = graph.producer.get(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def check_layer_counts(
    graph: Graph, precision: str, remainder: str, *, kept: Collection[str] = (), quantised: Collection[str] = ()
) -> None:
    """Refuse a typed graph that differs from the request: `kept` nodes are FP32, `quantised` int8, others remainder."""
    wrong = []
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op_type not in COMPUTE:
            continue
        kind = compute_type(graph, node)
        found[kind] += 1
        wanted = "int8" if node.name in quantised else "fp32" if node.name in kept else remainder
        if kind != wanted:
            wrong.append(f"{node.name} is {kind}, asked {wanted}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise GmsError(f"the {precision} graph is not what was asked for: {'; '.join(wrong[:3])}{more}")
    if not found[precision]:
        # Every computing node was an exception: then the name of the precision would be a lie.
        raise GmsError(f"asked for {precision}, but no computing node could be typed {precision}")


def computing_layers(executed: dict[str, dict[str, int]]) -> dict[str, int]:
    """How many convolutions and matrix products a CPU runs in which arithmetic."""
    found: Counter[str] = Counter()
    for kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
        found.update(executed.get(kind, {}))
    return dict(found)


def int8_layers(executed: dict[str, dict[str, int]]) -> int:
    """How many convolutions a CPU runs in int8."""
    return sum(
        count
        for kind, types in executed.items()
        if kind in ("Convolution", "Deconvolution")
        for arithmetic, count in types.items()
        if arithmetic in ("u8", "i8")
    )


def layers_in(executed: dict[str, dict[str, int]], arithmetic: str) -> int:
    """How many layers of any kind a CPU runs in an arithmetic."""
    return sum(types.get(arithmetic, 0) for types in executed.values())


def check_int8_execution(executed: dict[str, dict[str, int]], quantised: int) -> int:
    """How many quantised layers the CPU runs in int8; none at all is an error."""
    run = int8_layers(executed)
    if quantised and not run:
        raise GmsError(
            f"asked for int8, but the CPU runtime runs none of {quantised} quantised convolutions in int8",
            fix="use --precision fp32 on this machine",
        )
    return run


def _name(kind: int) -> str:
    from onnx import TensorProto

    names = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    return names.get(kind) or str(TensorProto.DataType.Name(kind)).lower()
