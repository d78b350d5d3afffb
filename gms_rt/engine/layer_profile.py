"""What is known of an engine's layers: where the time goes, in which type, and where the values leave FP32's.

Whoever ran them (`layers.py` on a CPU, `plan_layers.py` on a GPU) gives names, times and types; here they get their
stage, their share of the work, and the question which of them would gain from a better type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gms_rt.graph.count import STAGES, node_flop
from gms_rt.graph.graph import Graph, stage
from gms_rt.graph.layer_counts import COMPUTE

NOT_COMPARED = "nothing: layers were timed only"
_WORTH = 3  # layers that are named as worth a better type


@dataclass(frozen=True)
class LayerProfile:
    """One layer as the device runs it."""

    name: str
    stage: str
    kind: str  # the runtime's name for what it is
    arithmetic: str  # really executed: f32, bf16, f16, u8, i8; "" where the runtime does not say
    milliseconds: float
    gflop: float
    distance: float | None  # of what it puts out to f32's; None where that is not known
    nodes: tuple[str, ...]  # the ONNX nodes in it


@dataclass(frozen=True)
class EngineProfile:
    """An engine's layers, the one that differs most first."""

    engine: str
    execution: str
    device: str
    compared: str  # with what the distances are
    milliseconds: float  # of all layers together
    stages: dict[str, float]  # milliseconds by stage
    layers: tuple[LayerProfile, ...]
    worth: tuple[str, ...]  # the layers whose own rounding costs most: worth a better type
    inference: float  # milliseconds of an inference without the profile
    timed: str  # by what the layers were timed


@dataclass(frozen=True)
class RanLayer:
    """One layer as a runtime tells of it."""

    name: str
    kind: str
    arithmetic: str
    milliseconds: float
    nodes: tuple[str, ...]  # the ONNX nodes in it, in graph order


@dataclass(frozen=True)
class ProfiledRun:
    """What was run, where, and by whose clock."""

    engine: str
    execution: str
    device: str
    inference: float  # milliseconds without the profile
    timed: str


@dataclass(frozen=True)
class Distances:
    """How far nodes' results are from FP32's."""

    by_node: Mapping[str, float]
    compared: str  # what with what


def profile_from_layers(run: ProfiledRun, graph: Graph, ran: Sequence[RanLayer], distances: Distances) -> EngineProfile:
    """The profile of layers that ran; `graph` has the nodes that they are made of."""
    flop = {node.name: node_flop(graph, node) for node in graph.nodes}
    layers = [
        LayerProfile(
            layer.name,
            _stage(layer),
            layer.kind,
            layer.arithmetic,
            round(layer.milliseconds, 4),
            sum(flop[name] for name in layer.nodes) / 1e9,
            distances.by_node.get(layer.nodes[-1]) if layer.nodes else None,
            layer.nodes,
        )
        for layer in ran
    ]
    stages: dict[str, float] = {}
    for layer in layers:
        stages[layer.stage] = round(stages.get(layer.stage, 0.0) + layer.milliseconds, 4)
    return EngineProfile(
        run.engine,
        run.execution,
        run.device,
        distances.compared,
        round(sum(stages.values()), 4),
        {name: stages[name] for name in (*STAGES, "other") if name in stages},
        tuple(sorted(layers, key=lambda layer: -(layer.distance or 0.0))),
        _worth(graph, layers),
        round(run.inference, 4),
        run.timed,
    )


def _stage(layer: RanLayer) -> str:
    """The stage of a layer's nodes, else of its name; what the runtime put in under a name of its own is "other"."""
    found = stage(layer.nodes[0] if layer.nodes else layer.name)
    return found if found in STAGES else "other"


def _worth(graph: Graph, layers: Sequence[LayerProfile]) -> tuple[str, ...]:
    """Computing layers not in f32 that add most to the distance: its own rounding, not what came in."""
    computing = {node.name for node in graph.nodes if node.op_type in COMPUTE}
    known = {layer.nodes[-1]: layer.distance for layer in layers if layer.distance is not None}
    added = {
        layer.name: layer.distance - _incoming(graph, layer.nodes, known)
        for layer in layers
        if layer.distance is not None and layer.arithmetic != "f32" and not computing.isdisjoint(layer.nodes)
    }
    named = sorted(added, key=lambda name: -added[name])[:_WORTH]
    return tuple(name for name in named if added[name] > 0)


def _incoming(graph: Graph, nodes: Sequence[str], known: Mapping[str, float]) -> float:
    """The largest distance of what flows into some nodes, at the nearest places where it is known."""
    by_name = {node.name: node for node in graph.nodes}
    waiting, seen, found = [by_name[name] for name in nodes], set(nodes), 0.0
    while waiting:
        for tensor in waiting.pop().input:
            maker = graph.producer.get(tensor)
            if maker is None or maker.name in seen:
                continue
            seen.add(maker.name)
            if maker.name in known:
                found = max(found, known[maker.name])
            else:
                waiting.append(maker)
    return found
