"""Layers of an engine: their time, the type that the runtime reports, and how far they are from FP32."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.precision_graphs import scenes
from support.small_builds import built

from gms_rt.cli.layer_text import layers_text, rows_to_show
from gms_rt.cli.main import run
from gms_rt.engine.layer_distances import without_quantised_activations
from gms_rt.engine.layer_profile import EngineProfile, LayerProfile
from gms_rt.engine.layers import ProfileOptions, profile_engine
from gms_rt.errors import ArtifactError
from gms_rt.graph.layer_counts import int8_layers
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision.gate import Gate
from gms_rt.runtime.arithmetic import cpu_arithmetic

WIDE = Gate(0.5, 0.5)


def test_an_fp32_engine_is_at_no_distance_from_itself_and_every_computing_node_is_somewhere(graph, tmp_path):
    made = built(graph, tmp_path / "e", "fp32", calibration=None, gate_images=None)
    found = profile_engine(made.folder, ProfileOptions(scenes(1)))
    nodes = {name for layer in found.layers for name in layer.nodes}
    convolutions = {node.name for node in read_graph(graph).nodes if node.op_type in ("Conv", "ConvTranspose")}
    assert convolutions <= nodes
    assert {layer.distance for layer in found.layers} <= {0.0, None} and found.worth == ()
    assert {layer.arithmetic for layer in found.layers if layer.kind == "Convolution"} == {"f32"}
    assert found.milliseconds > 0 and {"encoder", "lmm", "decoder"} <= found.stages.keys()
    assert sum(found.stages.values()) == pytest.approx(sum(layer.milliseconds for layer in found.layers), abs=0.01)


def test_int8_layers_are_named_with_their_type_and_the_worst_first(graph, tmp_path):
    made = built(graph, tmp_path / "e", "int8", gate=WIDE)
    found = profile_engine(made.folder, ProfileOptions(scenes(1), graph))
    quantised = [layer for layer in found.layers if layer.kind == "Convolution" and layer.arithmetic in ("u8", "i8")]
    assert len(quantised) == int8_layers(made.manifest.census["cpu"]["layers"]) > 0
    distances = [layer.distance or 0.0 for layer in found.layers]
    assert distances == sorted(distances, reverse=True) and distances[0] > 1e-4
    assert 1 <= len(found.worth) <= 3
    by_name = {layer.name: layer for layer in found.layers}
    assert all(by_name[name].arithmetic != "f32" for name in found.worth)
    assert found.compared == "the FP32 graph tiny.onnx"
    assert profile_engine(made.folder, ProfileOptions(scenes(1))).compared.startswith(
        "this graph without quantised activations"
    )


def test_a_layer_that_was_made_wrong_is_where_the_distance_grows(graph, tmp_path):
    """The FP32 graph's weights of one layer are changed: from there on everything differs, and before it nothing."""
    import onnx

    made = built(graph, tmp_path / "e", "fp32", calibration=None, gate_images=None)
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("lmm/down.1.conv1.weight") or tensor.name == "lmm/down.1.conv1.weight":
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    found = profile_engine(made.folder, ProfileOptions(scenes(1), tmp_path / "other.onnx"))
    far = {name for layer in found.layers if layer.distance for name in layer.nodes}
    near = {name for layer in found.layers if layer.distance == 0 for name in layer.nodes}
    assert {"lmm/down.1.conv1", "decoder/conv"} <= far
    assert {"encoder/conv_in", "encoder/down", "lmm/down.0.conv1"} <= near


@pytest.mark.skipif(not cpu_arithmetic().bf16, reason="OpenVINO has no BF16 arithmetic on this CPU")
def test_a_bf16_engine_is_compared_with_its_own_graph_in_f32(graph, tmp_path):
    made = built(graph, tmp_path / "e", "bf16", gate=WIDE, calibration=None)
    found = profile_engine(made.folder, ProfileOptions(scenes(1)))
    assert found.execution == "bf16" and found.compared == "this graph in f32, its weights as stored"
    assert {layer.arithmetic for layer in found.layers if layer.kind == "Convolution"} == {"bf16"}
    assert 1e-4 < max(layer.distance or 0 for layer in found.layers) < 0.5 and found.worth


def test_short_layers_are_folded_into_one_line_unless_they_are_worth_a_look() -> None:
    layers = [
        LayerProfile(name, "lmm", "Convolution", "u8", ms, 0.1, 0.5, (name,))
        for name, ms in (("long", 0.5), ("short", 0.002), ("named", 0.0), ("none", 0.0099))
    ]
    profile = EngineProfile(
        "e", "f32", "cpu", "FP32", 0.5, {"lmm": 0.5}, tuple(layers), ("named",), 0.6, "a clock"
    )  # fmt: skip
    shown = rows_to_show(profile.layers, profile.worth)
    assert [layer.name for layer in shown] == ["long", "named"]
    assert "and 2 layers below 0.01 ms (--all shows them)" in layers_text(profile, shown=shown)
    everything = rows_to_show(profile.layers, profile.worth, every=True)
    text = layers_text(profile, shown=everything)
    assert everything == profile.layers and "--all" not in text and "an inference takes 0.60 ms" in text


def test_without_quantised_activations_nothing_is_left_of_them(graph, tmp_path):
    made = built(graph, tmp_path / "e", "int8", gate=WIDE)
    typed = read_graph(made.folder / "model.onnx")
    plain = without_quantised_activations(typed)
    assert not any(node.op_type == "QuantizeLinear" for node in plain.nodes)
    images = scenes(2)
    fp32 = Session(read_graph(graph)).probabilities(images).astype(int)
    gap = [np.abs(Session(each).probabilities(images) - fp32).mean() for each in (typed, plain)]
    assert gap[1] <= gap[0]


def test_the_command_shows_it_as_text_and_json(graph, tmp_path, monkeypatch, capsys):
    import onnx

    monkeypatch.chdir(tmp_path)
    built(graph, Path("e"), "fp32", calibration=None, gate_images=None)
    assert cv2.imwrite("scan.png", scenes(1)[0])
    assert run(["inspect", "e", "--layers", "--image", "scan.png"]) == 0
    said = capsys.readouterr().out
    assert "layer (largest distance first)" in said and "worth a better type: none" in said
    assert run(["inspect", "e", "--layers", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["layers"][0].keys() >= {"name", "stage", "kind", "arithmetic", "milliseconds", "gflop", "distance"}
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("encoder/conv_in."):
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, "silent.onnx")
    assert run(["inspect", "e", "--layers", "--reference", "silent.onnx", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert next(row["distance"] for row in rows if "encoder/conv_in" in row["nodes"]) == 1.0, "JSON knows no infinity"
    for words in (["--image", "scan.png"], ["--all"], ["--trust-plans"], ["--device", "cpu"]):
        assert run(["inspect", "e", *words]) == 2
        assert f"{words[0]}: needs --layers" in capsys.readouterr().err
    assert run(["inspect", "e", "--layers", "--device", "cuda"]) == 4
    assert "cannot run on cuda on this machine" in capsys.readouterr().err
    content = bytearray(Path("e/model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    Path("e/model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="was changed since it was built"):
        profile_engine(Path("e"))
