"""A plan's layers on a real GPU with full TensorRT, and only there: what other tests show with a fake one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.gpu_kernels import no_gpu
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import built

from gms_rt.cli.main import run
from gms_rt.engine.layers import ProfileOptions, profile_engine
from gms_rt.runtime.tensorrt_module import tensorrt_installed

WHY = no_gpu() or ("" if tensorrt_installed("tensorrt") else "full TensorRT is not installed here")
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


@pytest.mark.parametrize(("precision", "arithmetic"), [("fp32", "f32"), ("fp16", "f16"), ("int8", "i8")])
def test_a_real_plan_tells_times_types_and_stages(tmp_path: Path, capsys, precision: str, arithmetic: str) -> None:
    graph = tiny_graph(tmp_path)
    images = {"calibration": None, "gate_images": None} if precision == "fp32" else {}
    folder = built(graph, tmp_path / "e", precision, ("tensorrt",), **images).folder
    found = profile_engine(folder, ProfileOptions(scenes(1)))
    assert found.milliseconds > 0 and found.inference > 0 and "TensorRT's profiler" in found.timed
    assert {"encoder", "lmm", "decoder"} <= found.stages.keys()
    assert arithmetic in {layer.arithmetic for layer in found.layers}
    named = {name for layer in found.layers for name in layer.nodes}
    assert {"encoder/conv_in", "decoder/conv"} <= named
    capsys.readouterr()
    assert run(["inspect", str(folder), "--layers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == found.device
