"""Blocks that go back to f32 in a BF16 or FP16 engine: chosen by the gate, run in f32, opened by the C library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import GATE, built

from gms_rt.engine.describe import describe_engine
from gms_rt.engine.manifest import verify_files
from gms_rt.engine.select import load
from gms_rt.errors import GateError, GmsError
from gms_rt.graph.openvino_ir import IrGraph, write_ir
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision import cpu_choice, recipe_from_graph
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe import read_recipe
from gms_rt.precision.returned import runs_in_f32
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.options import CpuSettings

needs_bf16 = pytest.mark.skipif(not cpu_arithmetic().bf16, reason="OpenVINO has no BF16 arithmetic on this CPU")
KEPT = ["lmm/down.0.conv1", "lmm/down.0.conv2", "decoder/conv_mid"]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny_graph(tmp_path)


@needs_bf16
def test_marked_nodes_run_in_f32_and_the_others_in_bf16(graph: Path) -> None:
    fp32 = read_graph(graph)
    steered = Session(fp32, execution="bf16", form=IrGraph(fp32).keeping(KEPT))
    arithmetic = {
        part.removesuffix("/WithoutBiases"): layer.arithmetic
        for layer in steered.layer_report()
        if layer.kind == "Convolution"
        for part in (layer.name, *layer.parts)
    }
    convolutions = {node.name for node in fp32.nodes if node.op_type == "Conv"}
    assert {name for name in convolutions if arithmetic[name] == "f32"} == set(KEPT)
    assert {arithmetic[name] for name in convolutions - set(KEPT)} == {"bf16"}
    assert runs_in_f32(steered, KEPT) and not runs_in_f32(steered, [*KEPT, "encoder/down"])
    assert not runs_in_f32(Session(fp32, execution="bf16"), KEPT)


@needs_bf16
@pytest.mark.parametrize(
    "name", ["encoder/conv_in", "encoder/down", "lmm/down.1.conv2", "lmm/attention.q", "decoder/conv"]
)
def test_a_single_convolution_can_be_kept_wherever_it_stands(graph: Path, name: str) -> None:
    """A residual's sum and an activation are fused into a convolution: without them OpenVINO refuses the graph."""
    fp32 = read_graph(graph)
    assert runs_in_f32(Session(fp32, execution="bf16", form=IrGraph(fp32).keeping([name])), [name])


@needs_bf16
def test_the_c_library_opens_the_form_and_computes_the_same(graph: Path, tmp_path: Path) -> None:
    fp32, images = read_graph(graph), scenes(4)
    form = IrGraph(fp32).keeping(KEPT)
    write_ir(form, tmp_path / "model.xml")
    expected = Session(fp32, execution="bf16", form=form).probabilities(images)
    assert (expected != Session(fp32, execution="bf16").probabilities(images)).any()
    cache = tmp_path / "compiled"
    cache.mkdir(mode=0o700)
    for _ in range(2):  # the second time from what OpenVINO made of it at the first
        with CpuRunner(tmp_path / "model.xml", CpuSettings(execution="bf16", cache=cache)) as runner:
            assert np.array_equal(runner.infer(images), expected)
    (tmp_path / "model.xml.bin").rename(tmp_path / "elsewhere")
    with pytest.raises(GmsError, match=r"constants in 'model\.xml\.bin', which is not there"):
        CpuRunner(tmp_path / "model.xml", CpuSettings(execution="bf16"))
    (tmp_path / "model.xml.bin").write_bytes(b"\0" * 4)
    with pytest.raises(GmsError):
        CpuRunner(tmp_path / "model.xml", CpuSettings(execution="bf16"))
    for damage in (b"", b"<?xml version='1.0'?>", b"PK", form.xml[: len(form.xml) // 2]):
        (tmp_path / "model.xml").write_bytes(damage)
        with pytest.raises(GmsError):
            CpuRunner(tmp_path / "model.xml", CpuSettings(execution="bf16"))


def gate_between(graph: Path, execution: str, images: ImageSet = GATE) -> Gate:
    """A gate that everything in this arithmetic misses and FP32 meets."""
    fp32 = read_graph(graph)
    reference = Session(fp32).probabilities(images.images)
    low = judge(Session(fp32, execution=execution).probabilities(images.images), reference, Gate())
    assert low.minimum < 1, "there is nothing to win"
    return Gate(0.5, low.minimum + 1e-4)


@needs_bf16
def test_a_bf16_build_that_misses_the_gate_returns_blocks_and_runs_so(graph: Path, tmp_path: Path) -> None:
    gate = gate_between(graph, "bf16")
    made = built(graph, tmp_path / "e", "bf16", gate=gate, calibration=None)
    manifest, recipe = made.manifest, read_recipe(made.folder)
    assert manifest.gate["passed"] and manifest.gate["minimum"] >= gate.minimum
    assert manifest.gate["promise"] is None, "these images have chosen"
    assert recipe.returned and set(recipe.returned) <= set(recipe.kept)
    computing = [node.name for node in read_graph(graph).nodes if node.op_type in ("Conv", "ConvTranspose", "MatMul")]
    assert len(recipe.returned) < len(computing), "not everything went back"
    layers = manifest.census["cpu"]["layers"]["Convolution"]
    assert set(layers) == {"f32", "bf16"}
    assert any("so " in note and "stay in f32" in note for note in manifest.notes)
    assert (manifest.model, manifest.execution) == ("model.xml", "bf16")
    verify_files(made.folder, manifest)
    assert {"model.xml", "model.xml.bin", "model.onnx"} <= manifest.files.keys()
    assert describe_engine(made.folder).stages, "the graph can still be counted"
    reference = Session(read_graph(graph)).probabilities(GATE.images)
    with load(made.folder, trust_device=True) as engine:
        assert engine.runner.info.execution == "bf16"
        found = judge(engine.runner.infer(GATE.images), reference, gate)
    assert found.passed and found.minimum == pytest.approx(manifest.gate["minimum"], abs=1e-6)
    again = built(graph, tmp_path / "e", "bf16", gate=gate, calibration=None)
    assert again.unchanged
    recorded = built(graph, tmp_path / "recorded", "bf16", gate=gate, calibration=None, recipe=made.folder)
    assert recorded.manifest.gate["minimum"] == manifest.gate["minimum"], "it is judged as it will run"
    assert recorded.manifest.model == "model.xml" and read_recipe(recorded.folder).returned == recipe.returned
    # Nothing of it is opened that was changed since: neither the form nor its constants.
    for name in ("model.xml", "model.xml.bin"):
        copy = shutil.copytree(made.folder, tmp_path / f"copy-{name}")
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(GmsError, match=f"{name.replace('.', '[.]')} was changed since it was built"):
            load(copy)


@needs_bf16
def test_a_gate_that_no_choice_meets_writes_nothing_and_a_recipe_without_returned_nodes_stays_as_it_was(
    graph: Path, tmp_path: Path
) -> None:
    many = ImageSet(scenes(60, seed=3), "what bf16 costs in layers that cannot be steered shows in one of them")
    with pytest.raises(GateError, match="back in f32 too, the accuracy gate is not met"):
        built(graph, tmp_path / "e", "bf16", gate=Gate(1.0, 1.0), calibration=None, gate_images=many)
    assert not (tmp_path / "e").exists()
    tried: list[str] = []
    with pytest.raises(GateError, match=r"back in f32 too, .* on the 16 hardest images"):
        built(graph, tmp_path / "e", "bf16", progress=lambda phase, *_: tried.append(phase), gate=Gate(1.0, 1.0),
              calibration=None, gate_images=many)  # fmt: skip
    assert "every block in f32" in tried and "what a block in f32 wins" not in tried, "one look is enough"
    plain = built(graph, tmp_path / "plain", "bf16", gate=Gate(0.5, 0.5), calibration=None)
    assert "returned" not in json.loads((plain.folder / "precision.json").read_text())
    assert plain.manifest.model == "model.onnx" and not (plain.folder / "model.xml").exists()


@pytest.mark.skipif(not cpu_arithmetic().fp16, reason="OpenVINO has no FP16 arithmetic on this CPU")
def test_an_fp16_engine_in_f16_returns_blocks_too(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cpu_choice, recipe_from_graph):
        monkeypatch.setattr(module, "latencies", lambda *_: (10.0, 5.0))
    noise = ImageSet(np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8), "some pixels on the edge")
    gate = gate_between(graph, "f16", noise)
    made = built(graph, tmp_path / "e", "fp16", gate=gate, gate_images=noise)
    assert (made.manifest.execution, made.manifest.model) == ("f16", "model.xml")
    assert read_recipe(made.folder).returned
    assert set(made.manifest.census["cpu"]["layers"]["Convolution"]) == {"f16", "f32"}
