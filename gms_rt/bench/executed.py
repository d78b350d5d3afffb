"""An engine's work by the arithmetic in which this CPU runs it: what the runtime reports, not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gms_rt.engine.layers import nodes_by_layer
from gms_rt.graph.count import node_flop
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import ExecutedLayer

UNKNOWN = "unknown"  # computed inside a layer that is not reported by its parts, such as a fused attention


def executed_flop(graph: Graph, layers: Sequence[ExecutedLayer]) -> dict[str, float]:
    """Operations by arithmetic: "i8", "f32", "bf16", "f16"; what no layer claims is `UNKNOWN`."""
    ran: dict[str, str] = {}
    parts = nodes_by_layer(layers, graph)
    for layer in layers:
        for name in parts[layer.name]:
            ran[name] = "i8" if layer.arithmetic in ("u8", "i8") else layer.arithmetic
    found: dict[str, float] = {}
    for node in graph.nodes:
        operations = node_flop(graph, node)
        if operations:
            kind = ran.get(node.name, UNKNOWN)
            found[kind] = found.get(kind, 0.0) + operations
    return found


def shortest_milliseconds(flop: Mapping[str, float], gflops: Mapping[str, float]) -> float:
    """The time that the ceilings allow, each kind at its own; of a kind without a ceiling at the highest one."""
    best = max(gflops.values())
    return sum(operations / gflops.get(kind, best) for kind, operations in flop.items()) / 1e6
