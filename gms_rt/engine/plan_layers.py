"""Where a plan's time goes on this GPU, by TensorRT's profiler, and what its typed graph makes of the values.

Encoder, mapper and decoder are one plan: TensorRT names its layers after the ONNX nodes in them, and these carry the
stage. The inference as a whole is timed by CUDA events of the C library, as in a bench, without the profiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.engine.fits import Fit
from gms_rt.engine.layer_distances import TypedRun, layer_distances
from gms_rt.engine.layer_profile import (
    NOT_COMPARED,
    Distances,
    EngineProfile,
    ProfiledRun,
    RanLayer,
    profile_from_layers,
)
from gms_rt.engine.manifest import EngineManifest, verify_files
from gms_rt.engine.select import EXECUTIONS, LoadOptions, plan_runner
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import COMPUTE, compute_type
from gms_rt.graph.read import read_graph
from gms_rt.precision.emulation import low_type
from gms_rt.precision.recipe import read_recipe
from gms_rt.runtime.tensorrt_layers import LayerWatch, nodes_in_origin

_RUNS, _WARM_UP = 20, 3
_ARITHMETIC = {"int8": "i8", "fp32": "f32", "fp16": "f16", "bf16": "bf16"}  # as a typed graph prescribes it
_TIMED = "TensorRT's profiler; the inference by CUDA events, without it"


@dataclass(frozen=True)
class PlanDistances:
    """Whether, and against what, the values of a plan's typed graph are compared; on the processor, not on the GPU."""

    reference: Path | None = None  # the FP32 graph
    wanted: bool = True


def profile_plan(
    folder: Path, manifest: EngineManifest, fit: Fit, image: U8, distances: PlanDistances
) -> EngineProfile:
    """Time each layer of the plan that fits here, and compare what its typed graph computes with FP32."""
    with plan_runner(folder, manifest, fit, LoadOptions()) as plain:
        inference = float(np.median(plain.bench(image, seconds=0, iterations=_RUNS, warmup=0.1).compute))
        info = plain.info
    watch = LayerWatch()
    with plan_runner(folder, manifest, fit, LoadOptions(cuda_graph="never"), watch=watch) as runner:
        for number in range(_WARM_UP + _RUNS):
            if number >= _WARM_UP:
                watch.start()
            runner.infer(image)
    typed = typed_graph(folder, manifest, fit.target, distances.reference)
    graph = typed or stored_graph(folder, manifest)
    known = [node.name for node in graph.nodes]
    ran = [
        RanLayer(layer.name, layer.kind, layer.arithmetic, layer.milliseconds, nodes_in_origin(layer.origin, known))
        for layer in watch.layers()
    ]
    found = Distances({}, NOT_COMPARED)
    if distances.wanted:
        found = plan_distances(manifest, typed, image, [layer.nodes for layer in ran], distances.reference)
    run = ProfiledRun(manifest.name, info.execution, info.device, inference, _TIMED)
    return profile_from_layers(run, graph, ran, found)


def stored_graph(folder: Path, manifest: EngineManifest) -> Graph:
    """The graph in an engine folder, after its hash was compared."""
    verify_files(folder, manifest, [name for name in manifest.files if name.startswith(manifest.graph)])
    return read_graph(folder / manifest.graph, batch=manifest.batch)


def typed_graph(folder: Path, manifest: EngineManifest, flavour: str, reference: Path | None) -> Graph | None:
    """The graph that a plan was built from: in the folder where there is no CPU's, else made anew from the FP32 graph.

    None where that graph is not named, or is another one.
    """
    if "cpu" not in manifest.targets:
        return stored_graph(folder, manifest)
    recipe = read_recipe(folder)
    if reference is None or sha256_file(reference) != recipe.graph_sha256:
        return None
    return recipe.apply(read_graph(reference, batch=manifest.batch), flavour)


def plan_distances(
    manifest: EngineManifest, typed: Graph | None, image: U8, layers: Sequence[tuple[str, ...]], reference: Path | None
) -> Distances:
    """What the typed graph's layers put out on this processor, compared with FP32; not what the GPU put out."""
    if typed is None:
        return Distances({}, "nothing: the FP32 graph that the engine was built from must be named with --reference")
    if manifest.precision == "bf16" and reference is None:
        return Distances({}, "nothing: for a BF16 plan the FP32 graph must be named with --reference")
    run = TypedRun(typed, "f32", manifest.precision == "int8", emulated=bool(low_type(typed)))
    found = layer_distances(run, image, layers, reference)
    where = "the plan's typed graph, rounded as its types, ran on this processor"
    return Distances(found.by_node, f"{found.compared}; {where}")


def profile_without_device(
    folder: Path, manifest: EngineManifest, image: U8, distances: PlanDistances, why: str
) -> EngineProfile:
    """What can be known of an engine's plans where none runs: how far the typed graph's values are from FP32's."""
    typed = typed_graph(folder, manifest, manifest.plans[0].target, distances.reference)
    graph = typed or stored_graph(folder, manifest)
    ran = [
        RanLayer(node.name, node.op_type, _ARITHMETIC.get(compute_type(graph, node), ""), 0.0, (node.name,))
        for node in graph.nodes
        if node.op_type in COMPUTE
    ]
    found = plan_distances(manifest, typed, image, [layer.nodes for layer in ran], distances.reference)
    execution = EXECUTIONS[manifest.precision]
    run = ProfiledRun(manifest.name, execution, "no device", 0.0, f"nothing was timed: {why}")
    return profile_from_layers(run, graph, ran, found)
