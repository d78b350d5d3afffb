"""The bundled demo model as an engine, for what this machine has, with phantoms as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gms_rt.artifacts import sha256_file
from gms_rt.demo.phantoms import phantom
from gms_rt.engine.build import engine_from_graph
from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import graph_size
from gms_rt.precision.images import ImageSet
from gms_rt.precision.ranges import Progress
from gms_rt.precision.recipe import FILE as RECIPE
from gms_rt.precision.recipe import Recipe, read_recipe
from gms_rt.runtime.device import Machine, probe
from gms_rt.runtime.tensorrt_module import tensorrt_installed

ROOT = Path("engines")
# Seeds apart from those that the demo model was trained and is shown with.
CALIBRATION_SEEDS = range(6_000_000, 6_000_024)
GATE_SEEDS = range(6_100_000, 6_100_064)


def demo_graph() -> Path:
    """The bundled graph."""
    path = Path(__file__).parent.parent / "demo" / "model" / "demo.onnx"
    if not path.is_file():
        raise ArtifactError("the bundled model is missing", where=path, fix="install gms-rt again")
    return path


def demo_engine(
    root: Path = ROOT,
    precision: str = "fp16",
    targets: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    sms: Sequence[int] = (),
    out: Path | None = None,
    force: bool = False,
) -> Path:
    """Build the bundled model into `root/demo-<precision>` (or `out`); returns the engine folder.

    INT8 applies the recipe that is bundled with the model, so it takes no search; the gate judges it all the same.
    """
    graph = demo_graph()
    folder = out or root / f"demo-{precision}"
    height, width = graph_size(graph)
    chosen = list(targets) if targets else default_targets(precision)
    command = f"gms-rt build --precision {precision}"
    if targets:
        command += f" --target {','.join(chosen)}" + (f" --sm {','.join(map(str, sms))}" if sms else "")
    if out is not None:
        command += f" --out {out}"
    engine_from_graph(
        graph,
        folder,
        precision=precision,
        targets=chosen,
        sms=sms,
        calibration=phantoms(CALIBRATION_SEEDS, height, width),
        gate_images=phantoms(GATE_SEEDS, height, width),
        recipe=recorded_recipe(graph, precision),
        source={"kind": "bundled"},
        rebuild=command,
        force=force,
        progress=progress,
    )
    return folder


def recorded_recipe(graph: Path, precision: str) -> Recipe | None:
    """The bundled INT8 recipe, if it is for this very graph."""
    if precision != "int8" or not (graph.parent / RECIPE).is_file():
        return None
    recipe = read_recipe(graph.parent)
    return recipe if recipe.graph_sha256 == sha256_file(graph) else None


def default_targets(precision: str, machine: Machine | None = None) -> list[str]:
    """What a bare build is for: this CPU, its GPUs' TensorRT, and TensorRT-RTX where its wheels are installed."""
    here = machine or probe()
    found = ["cpu"]
    if precision == "bf16" and not here.cpu.bf16:
        found = []
    if here.gpus and tensorrt_installed("tensorrt"):
        found.append("tensorrt")
    if tensorrt_installed("tensorrt-rtx") and "tensorrt" not in found:
        found.append("tensorrt-rtx")
    return found or ["cpu"]  # the CPU's refusal names the reason and the alternatives


def phantoms(seeds: range, height: int, width: int) -> ImageSet:
    """Phantom images from seeds."""
    images = [phantom(seed, height, width).rgb for seed in seeds]
    return ImageSet(np.stack(images), f"phantoms, seeds {seeds.start} to {seeds.stop - 1}")
