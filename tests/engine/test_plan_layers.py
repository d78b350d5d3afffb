"""Layers of a plan, over a fake TensorRT: its profiler's times, its inspector's types, stages by the ONNX names.

The same on a real GPU, where there is one with TensorRT: `tests/runtime/test_real_tensorrt.py`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.fake_cuda import HEIGHT, WIDTH, FakeDriver
from support.fake_tensorrt import FakeTensorRt
from support.plan_engines import CPU
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import built
from support.trees import plain_manifest

from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.cli.main import run
from gms_rt.engine import fits, layers
from gms_rt.engine.layers import ProfileOptions, profile_engine
from gms_rt.engine.manifest import Plan, read_manifest, write_manifest
from gms_rt.engine.plan_layers import plan_distances, typed_graph
from gms_rt.errors import DeviceError
from gms_rt.graph.layer_counts import computes_in_int8
from gms_rt.graph.read import read_graph
from gms_rt.graph.write import write_graph
from gms_rt.precision.floating import low_precision_graph, pixel_arithmetic_nodes
from gms_rt.precision.gate import Gate
from gms_rt.runtime import options
from gms_rt.runtime.device import Gpu, Machine
from gms_rt.runtime.options import CudaSettings

A100 = Machine(CPU, (Gpu(0, "A100", 80, 2**34),), "13.0", "", {})
HALF = [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]
INSPECTED = {
    "Layers": [
        {"Name": "Reformatting CopyNode for image", "LayerType": "Reformat", "Inputs": [], "Outputs": HALF},
        {
            "Name": "__myl_Conv_1",
            "LayerType": "CaskConvolution",
            "Inputs": HALF,
            "Weights": {"Type": "Int8", "Count": 9},
            "Metadata": "[ONNX Layer: encoder/conv_in]\x1e[ONNX Layer: encoder/act_in]",
        },
        {"Name": "{ForeignNode[lmm/down.0.conv1...lmm/down.1.conv1]}", "LayerType": "Myelin", "Outputs": HALF},
        "decoder/conv",
    ]
}
TIMES = (
    ("__myl_Conv_1", 0.5),
    ("{ForeignNode[lmm/down.0.conv1...lmm/down.1.conv1]}", 0.25),
    ("decoder/conv", 1.0),
    ("Reformatting CopyNode for image", 0.125),
    ("decoder/conv", 1.0),  # a layer may run twice in one inference
)


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    made = FakeDriver()
    made.library.fake_cuda_reset()
    yield made
    made.assert_clean()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> FakeTensorRt:
    """A machine with an A100 and TensorRT, both fake."""
    module = FakeTensorRt(driver, 1, rtx=False)
    module.script.update(layers=TIMES, inspected=json.dumps(INSPECTED))
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(fits, "probe", lambda: A100)
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "11.4.0")
    monkeypatch.setattr(options, "CudaSettings", functools.partial(CudaSettings, driver=driver.path))
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An engine with a plan alone; its graph is a small one, for the names in it."""
    place = tmp_path / "e"
    place.mkdir()
    tiny_graph(tmp_path).rename(place / "model.onnx")
    (place / "gpu.plan").write_bytes(b"a plan")
    plan = Plan("tensorrt", "gpu.plan", sha256_bytes(b"a plan"), 6, 80, "11.4.0", 0.1)
    manifest = plain_manifest(
        "e", HEIGHT, width=WIDTH, precision="fp16", targets=["tensorrt"], plans=[plan],
        files={"model.onnx": sha256_file(place / "model.onnx")},
    )  # fmt: skip
    write_manifest(place, manifest)
    return place


def test_each_layer_has_its_time_its_type_and_its_stage(gpu: FakeTensorRt, folder: Path) -> None:
    image = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    found = profile_engine(folder, ProfileOptions(image, trust_plans=True, distances=False))
    by_name = {layer.name: layer for layer in found.layers}
    rows = {name: (layer.stage, layer.kind, layer.arithmetic) for name, layer in by_name.items()}
    assert rows == {
        "Reformatting CopyNode for image": ("other", "Reformat", "f16"),
        "__myl_Conv_1": ("encoder", "CaskConvolution", "i8"),
        "{ForeignNode[lmm/down.0.conv1...lmm/down.1.conv1]}": ("lmm", "Myelin", "f16"),
        "decoder/conv": ("decoder", "", ""),
    }
    # The fake takes 1, 2, 3, 1, … times as long: the median is twice what is listed.
    assert by_name["__myl_Conv_1"].milliseconds == 1.0 and by_name["decoder/conv"].milliseconds == 4.0
    assert found.stages == {"encoder": 1.0, "lmm": 0.5, "decoder": 4.0, "other": 0.25}
    assert list(found.stages) == ["encoder", "lmm", "decoder", "other"]
    assert by_name["__myl_Conv_1"].nodes[0] == "encoder/conv_in" and by_name["__myl_Conv_1"].gflop > 0
    assert (found.execution, found.device) == ("f16", "Fake GPU") and found.inference > 0
    assert "TensorRT's profiler" in found.timed and found.worth == ()


def test_an_inference_without_a_profile_is_timed_apart_and_nothing_is_captured_with_one(
    gpu: FakeTensorRt, folder: Path
) -> None:
    profile_engine(folder, ProfileOptions(trust_plans=True, distances=False))
    assert gpu.events.count("context") == gpu.events.count("context dropped") == 2
    second = gpu.events[gpu.events.index("engine dropped") :]
    assert second.count("execute") >= 23, "a replayed graph would have called nothing, and told no times"


def test_a_plan_that_tells_nothing_still_has_times(gpu: FakeTensorRt, folder: Path) -> None:
    gpu.script["inspected"] = "no JSON"
    found = profile_engine(folder, ProfileOptions(trust_plans=True, distances=False))
    assert {(layer.kind, layer.arithmetic) for layer in found.layers} == {("", "")}
    assert found.stages["decoder"] == 4.0 and found.stages["lmm"] == 0.5, "by the names that are ONNX's own"
    assert found.stages["other"] == 1.25


def test_a_plan_that_nobody_vouches_for_is_not_profiled(gpu: FakeTensorRt, folder: Path) -> None:
    with pytest.raises(DeviceError, match="was not built on this machine"):
        profile_engine(folder, ProfileOptions(device="cuda"))
    assert gpu.events == []


def low_engine(tmp_path: Path, precision: str) -> tuple[Path, Path]:
    """An FP32 graph, and a folder with a plan of it for a GPU that is not here."""
    source = tiny_graph(tmp_path)
    typed = low_precision_graph(read_graph(source), precision, set(pixel_arithmetic_nodes(read_graph(source))))
    place = tmp_path / precision
    place.mkdir()
    write_graph(typed, place / "model.onnx")
    (place / "gpu.plan").write_bytes(b"a plan")
    plan = Plan("tensorrt", "gpu.plan", sha256_bytes(b"a plan"), 6, 80, "11.4.0", 0.1)
    _, height, width = typed.size
    manifest = plain_manifest(
        precision, height, width=width, precision=precision, targets=["tensorrt"], plans=[plan],
        files={"model.onnx": sha256_file(place / "model.onnx")},
    )  # fmt: skip
    write_manifest(place, manifest)
    return source, place


def test_without_a_gpu_the_typed_graph_s_values_are_compared_and_nothing_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    nobody = Machine(CPU, (), None, "no NVIDIA driver", {})
    for module in (fits, layers):
        monkeypatch.setattr(module, "probe", lambda: nobody)
    source, place = low_engine(tmp_path, "fp16")
    found = profile_engine(place, ProfileOptions(scenes(1), source))
    by_name = {layer.name: layer for layer in found.layers}
    convolution = by_name["decoder/conv"]
    assert convolution.arithmetic == "f16" and 1e-5 < (convolution.distance or 0) < 1e-2, "FP16 rounds to 11 bits"
    assert found.worth and found.milliseconds == 0 and "no NVIDIA driver" in found.timed
    assert "the FP32 graph tiny.onnx" in found.compared and "rounded as its types" in found.compared
    assert run(["inspect", str(place), "--layers"]) == 0
    said = capsys.readouterr().out
    assert "decoder/conv" in said and "nothing was timed" in said
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        profile_engine(place, ProfileOptions(scenes(1), source, device="cuda"))


@pytest.mark.usefixtures("cache_of_builds")
def test_the_typed_graph_of_a_plan_is_compared_on_the_processor(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path)
    made = built(graph, tmp_path / "e", "int8", gate=Gate(0.5, 0.5))
    manifest = read_manifest(made.folder)
    typed = typed_graph(made.folder, manifest, "tensorrt", graph)
    assert typed is not None and typed.nodes != read_graph(made.folder / "model.onnx").nodes, "not the CPU's form"
    ends = [(node.name,) for node in typed.nodes if node.op_type == "Conv"]
    found = plan_distances(manifest, typed, scenes(1), ends, graph)
    quantised = {node.name for node in typed.nodes if computes_in_int8(typed, node)}
    assert found.by_node and all(found.by_node[name] > 1e-4 for name in quantised & found.by_node.keys())
    assert "the FP32 graph tiny.onnx" in found.compared and "on this processor" in found.compared
    assert typed_graph(made.folder, manifest, "tensorrt", None) is None
    assert typed_graph(made.folder, manifest, "tensorrt", made.folder / "model.onnx") is None, "another graph"
    assert "must be named with --reference" in plan_distances(manifest, None, scenes(1), ends, None).compared
