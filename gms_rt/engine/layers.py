"""Where an engine's time goes on this CPU, and where its values leave FP32's: layer by layer, as the runtime runs it.

Times are OpenVINO's own, of the very graph that the engine opens. Distances compare what each layer puts out with what
the same layer puts out in f32: of a bf16 or f16 engine the same graph, of an INT8 engine the graph without quantised
activations (its weights as stored), or an FP32 graph that is named. A distance is the root mean square of the
difference, divided by that of the FP32 values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.engine.golden import read_golden
from gms_rt.engine.manifest import GOLDEN, STEERED, EngineManifest, read_manifest, read_verified, verify_files
from gms_rt.errors import DeviceError, GmsError
from gms_rt.graph.count import STAGES, node_flop
from gms_rt.graph.edit import drop_unused, replace_nodes
from gms_rt.graph.graph import Graph, stage
from gms_rt.graph.openvino_ir import IrGraph, IrModel
from gms_rt.graph.read import graph_from_model, read_graph
from gms_rt.graph.run import ExecutedLayer, Session
from gms_rt.precision.ranges import with_outputs
from gms_rt.precision.recipe import read_recipe
from gms_rt.runtime.arithmetic import cpu_arithmetic

_WORTH = 3  # layers that are named as worth a better type
_COMPUTING = ("Convolution", "Deconvolution", "MatMul", "FullyConnected")


@dataclass(frozen=True)
class LayerProfile:
    """One layer as this CPU runs it."""

    name: str
    stage: str
    kind: str  # OpenVINO's name for what it is
    arithmetic: str  # really executed: f32, bf16, f16, u8, i8
    milliseconds: float
    gflop: float
    distance: float | None  # of what it puts out to f32's; None where that is not a value of the graph
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


def session_from_engine(folder: Path, manifest: EngineManifest, *, execution: str = "") -> Session:
    """The graph that an engine opens on this CPU, after its hashes were compared; `execution` as it runs here."""
    return _opened(folder, manifest, execution or execution_here(manifest))[1]


def execution_here(manifest: EngineManifest) -> str:
    """The arithmetic that an engine's floating point has on this CPU."""
    able = {"bf16": cpu_arithmetic().bf16, "f16": cpu_arithmetic().fp16}
    return manifest.execution if able.get(manifest.execution, True) else "f32"


def nodes_by_layer(layers: Sequence[ExecutedLayer], graph: Graph) -> dict[str, tuple[str, ...]]:
    """The ONNX nodes that each layer was made of, in graph order.

    OpenVINO forgets the name of a ConvTranspose with a bias: such layers are taken in order, if none is missing.
    """
    found = {}
    for layer in layers:
        parts = {part.removesuffix("/WithoutBiases") for part in (layer.name, *layer.parts)}
        found[layer.name] = tuple(node.name for node in graph.nodes if node.name in parts)
    up = [node.name for node in graph.nodes if node.op_type == "ConvTranspose"]
    named = {name for nodes in found.values() for name in nodes}
    nameless = [layer.name for layer in layers if layer.kind == "Deconvolution" and not found[layer.name]]
    missing = [name for name in up if name not in named or len(nameless) == len(up)]
    if len(nameless) == len(missing):
        for layer_name, node in zip(nameless, missing, strict=True):
            others = {name: tuple(n for n in nodes if n != node) for name, nodes in found.items()}
            found = others | {layer_name: (node,)}
    return found


def profile_engine(folder: Path, images: U8 | None = None, *, reference: Path | None = None) -> EngineProfile:
    """Time each layer and compare what it puts out; `images` are of the engine's size, by default its own reference's.

    `reference` is the FP32 graph that the engine was built from.
    """
    manifest = read_manifest(folder)
    graph, session = _opened(folder, manifest, execution_here(manifest), profile=True)
    image = _image(folder, manifest, images)
    report, times = session.layer_report(), session.layer_milliseconds(image)
    found = nodes_by_layer(report, graph)
    distances, compared = _distances(folder, manifest, graph, image, list(found.values()), reference)
    flop = {node.name: node_flop(graph, node) for node in graph.nodes}
    layers = [
        LayerProfile(
            layer.name,
            _stage(found[layer.name][0] if found[layer.name] else layer.name),
            layer.kind,
            layer.arithmetic,
            round(times.get(layer.name, 0.0), 4),
            sum(flop[name] for name in found[layer.name]) / 1e9,
            distances.get(found[layer.name][-1]) if found[layer.name] else None,
            found[layer.name],
        )
        for layer in report
    ]
    stages: dict[str, float] = {}
    for layer in layers:
        stages[layer.stage] = round(stages.get(layer.stage, 0.0) + layer.milliseconds, 4)
    return EngineProfile(
        manifest.name,
        execution_here(manifest),
        cpu_arithmetic().name,
        compared,
        round(sum(stages.values()), 4),
        stages,
        tuple(sorted(layers, key=lambda layer: -(layer.distance or 0.0))),
        _worth(graph, layers),
    )


def _stage(name: str) -> str:
    """The stage that a name begins with; what OpenVINO put between layers under a name of its own is "other"."""
    found = stage(name)
    return found if found in STAGES else "other"


def _worth(graph: Graph, layers: Sequence[LayerProfile]) -> tuple[str, ...]:
    """Computing layers not in f32 that add most to the distance: its own rounding, not what came in."""
    known = {layer.nodes[-1]: layer.distance for layer in layers if layer.distance is not None}
    added = {
        layer.name: layer.distance - _incoming(graph, layer.nodes, known)
        for layer in layers
        if layer.distance is not None and layer.kind in _COMPUTING and layer.arithmetic != "f32"
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


def _opened(folder: Path, manifest: EngineManifest, execution: str, *, profile: bool = False) -> tuple[Graph, Session]:
    """An engine's ONNX graph and the session that runs it, after its hashes were compared."""
    if "cpu" not in manifest.targets:
        raise DeviceError("has no CPU graph, and only those can be looked into", where=folder, fix="build for cpu")
    verify_files(folder, manifest, [name for name in manifest.files if name.startswith(manifest.graph)])
    graph = read_graph(folder / manifest.graph, batch=manifest.batch)
    return graph, Session(graph, execution=execution, form=_form(folder, manifest), profile=profile)


def _form(folder: Path, manifest: EngineManifest) -> IrModel | None:
    if manifest.model != STEERED:
        return None
    return IrModel(read_verified(folder, manifest, STEERED), read_verified(folder, manifest, f"{STEERED}.bin"))


def _image(folder: Path, manifest: EngineManifest, images: U8 | None) -> U8:
    """One batch: of the images given, else of the engine's reference, else noise."""
    if images is None and (folder / GOLDEN).is_file():
        images = read_golden(folder / GOLDEN).images
    shape = (manifest.batch, manifest.height, manifest.width, 3)
    if images is None or images.shape[1:] != shape[1:]:
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return np.ascontiguousarray(np.resize(images, shape))


def _distances(
    folder: Path,
    manifest: EngineManifest,
    graph: Graph,
    image: U8,
    layers: Sequence[tuple[str, ...]],
    reference: Path | None,
) -> tuple[dict[str, float], str]:
    """The distance at the last node of each layer, by that node, and what was compared."""
    from onnx import TensorProto

    if reference is not None:
        plain, compared = read_graph(reference, batch=manifest.batch), f"the FP32 graph {reference.name}"
    elif manifest.precision == "int8":
        plain, compared = without_quantised_activations(graph), "this graph without quantised activations, in f32"
    else:
        plain, compared = graph, "this graph in f32, its weights as stored"
    made = {node.name: node.output[0] for node in graph.nodes}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    ends = [
        name
        for name in dict.fromkeys(nodes[-1] for nodes in layers if nodes)
        if made[name] in plain.producer and all(
            each.dtype.get(made[name]) in floats and made[name] in each.shape for each in (graph, plain)
        )
    ]  # fmt: skip
    if not ends:
        return {}, compared
    tensors = [made[name] for name in ends]
    probed = with_outputs(graph, tensors)
    returned = read_recipe(folder).returned if manifest.model == STEERED else []
    form = IrGraph(probed).keeping(returned) if returned else None
    here = Session(probed, execution=execution_here(manifest), form=form).outputs(image)[1:]
    there = Session(with_outputs(plain, tensors)).outputs(image)[1:]
    found = {}
    for name, value, expected in zip(ends, here, there, strict=True):
        wanted = np.asarray(expected, np.float64)
        size = float(np.sqrt(np.mean(wanted**2)))
        off = float(np.sqrt(np.mean((np.asarray(value, np.float64) - wanted) ** 2)))
        found[name] = off / size if size > 0 else float(off > 0)  # relative to nothing: all of it
    return found, compared


def without_quantised_activations(graph: Graph) -> Graph:
    """The same graph with Q/DQ pairs on activations left out; weights stay as they are stored."""
    plain = graph.copy()
    instead = {}
    for node in graph.nodes:
        maker = graph.producer.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            instead[node.output[0]] = maker.input[0]
    if not instead:
        raise GmsError("the graph has no quantised activation to leave out")
    for node in plain.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
    gone = set(instead) | {graph.producer[name].input[0] for name in instead}
    replace_nodes(plain.model, [node for node in plain.nodes if not set(node.output) <= gone])
    drop_unused(plain.model)
    return graph_from_model(plain.model)
