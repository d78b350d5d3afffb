"""Where an engine's time goes on this device, and where its values leave FP32's: layer by layer, as it really runs.

On a CPU times are OpenVINO's own, of the very graph that the engine opens; on a GPU (`plan_layers.py`) TensorRT's
profiler's. Distances (`layer_distances.py`) are found on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.engine.golden import read_golden
from gms_rt.engine.layer_distances import TypedRun, layer_distances
from gms_rt.engine.layer_profile import (
    NOT_COMPARED,
    Distances,
    EngineProfile,
    ProfiledRun,
    RanLayer,
    profile_from_layers,
)
from gms_rt.engine.manifest import GOLDEN, STEERED, EngineManifest, read_manifest, read_verified, verify_files
from gms_rt.engine.plan_layers import PlanDistances, profile_plan, profile_without_device
from gms_rt.engine.select import LoadOptions, fit_here
from gms_rt.errors import DeviceError
from gms_rt.graph.graph import Graph
from gms_rt.graph.openvino_ir import IrModel
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import ExecutedLayer, Session
from gms_rt.precision.recipe import read_recipe
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.device import parse_device, probe


@dataclass(frozen=True)
class ProfileOptions:
    """What of an engine is profiled, and against what."""

    images: U8 | None = None  # of the engine's size; by default its own reference's
    reference: Path | None = None  # the FP32 graph that the engine was built from; by default its own graph in f32
    device: str | None = None  # "cpu", "cuda" or "cuda:N"; None: where `load` would run it
    trust_plans: bool = False  # whether a plan is run whoever built it
    distances: bool = True  # whether what the layers put out is compared; it takes two more inferences, and memory


def profile_engine(folder: Path, options: ProfileOptions | None = None) -> EngineProfile:
    """Time each layer of an engine on this device, and compare what it puts out with FP32's."""
    how = options or ProfileOptions()
    manifest = read_manifest(folder)
    image = _image(folder, manifest, how.images)
    if manifest.plans or parse_device(how.device)[0] == "cuda":
        against = PlanDistances(how.reference, how.distances)
        try:
            fit = fit_here(folder, manifest, LoadOptions(how.device, trust_plans=how.trust_plans))
        except DeviceError as error:
            if not manifest.plans or how.device is not None or probe().gpus:
                raise
            return profile_without_device(folder, manifest, image, against, error.what)
        if fit.plan is not None:
            return profile_plan(folder, manifest, fit, image, against)
    graph, session = _opened(folder, manifest, execution_here(manifest), profile=True)
    report, times = session.layer_report(), session.layer_milliseconds(image)
    found = nodes_by_layer(report, graph)
    ran = [
        RanLayer(layer.name, layer.kind, layer.arithmetic, times.get(layer.name, 0.0), found[layer.name])
        for layer in report
    ]
    distances = Distances({}, NOT_COMPARED)
    if how.distances:
        returned = read_recipe(folder).returned if manifest.model == STEERED else ()
        typed = TypedRun(graph, execution_here(manifest), manifest.precision == "int8", returned)
        distances = layer_distances(typed, image, list(found.values()), how.reference)
    run = ProfiledRun(
        manifest.name,
        execution_here(manifest),
        cpu_arithmetic().name,
        session_from_engine(folder, manifest).milliseconds(image),
        "OpenVINO's own profile",
    )
    return profile_from_layers(run, graph, ran, distances)


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
