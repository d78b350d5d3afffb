"""Builds of a small graph, judged on drawn scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gms_rt.engine.build import BuiltEngine, build_engine
from gms_rt.engine.manifest import EngineManifest
from gms_rt.engine.request import BuildRequest
from gms_rt.precision.images import ImageSet
from gms_rt.progress import OnProgress, silent
from gms_rt.runtime.device import Cpu
from gms_rt.runtime.tensorrt_module import tensorrt_installed
from support.precision_graphs import scenes

CALIBRATION = ImageSet(scenes(4, seed=11), "scenes 11")
GATE = ImageSet(scenes(6, seed=12), "scenes 12")
PLAIN_CPU = Cpu("plain cpu", "x86_64", 2, ("avx2",))
needs_rtx = pytest.mark.skipif(not tensorrt_installed("tensorrt-rtx"), reason="the tensorrt-rtx extra is not installed")


def built(
    graph: Path,
    out: Path,
    precision: str = "fp16",
    targets: tuple[str, ...] = ("cpu",),
    progress: OnProgress = silent,
    **options: Any,
) -> BuiltEngine:
    """Build with these scenes, unless options name others."""
    images = {"calibration": CALIBRATION, "gate_images": GATE}
    return build_engine(BuildRequest(graph, out, precision, targets, **(images | options)), progress)


def build(graph: Path, out: Path, *args: Any, **options: Any) -> EngineManifest:
    """Build, for the manifest."""
    return built(graph, out, *args, **options).manifest
