"""Blocks of a graph: the units in which the search gives precision back, and what each costs.

A block is a group of convolutions that belong together: those of one module, as the weights' names tell
(`lmm/down.0.conv1.weight` and `lmm/down.0.conv2.weight`), or a single convolution where names do not tell.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gms_rt.graph.graph import Graph, attribute, stage
from gms_rt.graph.layer_counts import COMPUTE

# Time of an INT8 operation in FP32 operations, and of taking one value through Q/DQ: a cost model, not a measurement.
INT8_COST = 0.35
STAGES = ("input", "encoder", "lmm", "decoder", "output")


@dataclass(frozen=True)
class Block:
    """Some convolutions with one fate. `saves` is the model's estimate of FLOP-equivalents that INT8 spares."""

    name: str
    nodes: tuple[str, ...]
    flop: int
    saves: float


def blocks(graph: Graph, candidates: Collection[str]) -> list[Block]:
    """The candidates in blocks, in graph order."""
    groups: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.name in set(candidates):
            groups.setdefault(_module(node), []).append(node)
    found = []
    for name, nodes in groups.items():
        flop = sum(node_flop(graph, node) for node in nodes)
        found.append(Block(name, tuple(n.name for n in nodes), flop, flop * (1 - INT8_COST)))
    return found


def node_flop(graph: Graph, node: Any) -> int:
    """Floating-point operations of a computing node: two a multiply-add."""
    if node.op_type not in COMPUTE or any(name not in graph.shape for name in (*node.input[:2], node.output[0])):
        return 0
    out, weights = graph.shape[node.output[0]], graph.shape[node.input[1]]
    if node.op_type == "Conv":
        return 2 * math.prod(out) * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(graph.shape[node.input[0]]) * math.prod(weights[1:])
    inner = graph.shape[node.input[0]][-2 if attribute(node, "transA", 0) else -1]
    return 2 * math.prod(out) * inner


def stages(graph: Graph) -> list[dict[str, Any]]:
    """FLOP, parameters and nodes by stage, in the order of the pipeline."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)
    rows: dict[str, dict[str, Any]] = {}
    counted: set[str] = set()
    for node in graph.nodes:
        row = rows.setdefault(stage(node.name) or "other", {"nodes": 0, "flop": 0, "parameters": 0})
        row["nodes"] += 1
        row["flop"] += node_flop(graph, node)
        for name in node.input:
            tensor = graph.initialisers.get(name)
            # Scales and zero points are how weights are stored, not weights.
            if tensor is None or name in counted or tensor.data_type not in floats:
                continue
            counted.add(name)
            if not name.endswith(("/scale", "/zero")):
                row["parameters"] += math.prod(tensor.dims)
    order = [*STAGES, *sorted(set(rows) - set(STAGES))]
    return [{"stage": name, **rows[name]} for name in order if name in rows]


def _module(node: Any) -> str:
    head, _, own = node.name.rpartition("/") if "/" in node.name else ("", "", node.name)
    parts = node.input[1].removeprefix(f"{stage(node.name)}/").split(".")
    if len(parts) > 1 and parts[-1] == "weight":
        # Drop the parameter's name and the convolution's own: what remains is the module around it.
        own = ".".join(parts[:-2] or parts[:-1])
        head = stage(node.name)
    elif "/" in head:
        return str(head)  # names that are paths: the convolution's parent
    return f"{head}/{own}" if head else own
