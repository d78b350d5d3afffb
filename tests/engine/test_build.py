"""Engine folders: what is built, recorded, kept, refused, and found unchanged."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import ClassVar

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import CALIBRATION, GATE, build, built, needs_rtx
from support.trees import ROOT

from gms_rt.artifacts import read_json
from gms_rt.cli.engine_text import build_text, gate_lines
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine import build as build_module
from gms_rt.engine import openvino, tensorrt
from gms_rt.engine.build import build_engine
from gms_rt.engine.fits import engine_fits
from gms_rt.engine.golden import read_golden
from gms_rt.engine.manifest import read_manifest, verify_files, write_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.parity.after_build import certify_built
from gms_rt.precision import cpu_choice, plan_gate
from gms_rt.precision.cpu_choice import CpuChoice
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe import read_recipe
from gms_rt.runtime.arithmetic import cpu_arithmetic


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@needs_rtx
def test_one_call_builds_cpu_and_two_sms(graph, tmp_path, precision):
    out = tmp_path / "engines/e"
    manifest = build(graph, out, precision, ("cpu", "tensorrt-rtx"), sms=(80, 89), gate=Gate(0.95, 0.9))
    assert read_manifest(out) == manifest
    verify_files(out, manifest)
    assert [(p.sm, p.target) for p in manifest.plans] == [(80, "tensorrt-rtx"), (89, "tensorrt-rtx")]
    assert all(p.file == tensorrt.plan_name("tensorrt-rtx", p.version, p.sm) for p in manifest.plans)
    assert all((out / p.file).stat().st_size == p.bytes > 10_000 for p in manifest.plans)
    typed = {"fp32": "FLOAT", "fp16": "HALF", "int8": "HALF"}[precision]
    for plan in manifest.plans:
        network = manifest.census[plan.file]["network"]
        assert set(network["CONVOLUTION"]) == {typed}
        assert ("QUANTIZE" in network) == (precision == "int8")
    convolutions = manifest.census["graph"]["compute"]["Conv"]
    assert convolutions[precision] >= 9
    check_execution(manifest, precision)
    images = scenes(6, seed=30)
    reference = Session(read_graph(graph)).probabilities(images)
    found = Session(read_graph(out / "model.onnx")).probabilities(images)
    assert judge(found, reference, Gate(0.95, 0.9)).passed
    assert precision != "fp32" or np.array_equal(found, reference)
    recipe = read_recipe(out)
    assert recipe.precision == precision and recipe.graph_sha256 == manifest.source["sha256"]
    assert len(recipe.int8) == (11 if precision == "int8" else 0)
    assert recipe.cpu_only == (["decoder/conv_out"] if precision == "int8" else [])
    if precision != "fp32":
        assert manifest.gate["passed"] and manifest.gate["data"]["sha256"] == GATE.sha256
        assert recipe.calibration == CALIBRATION.record()
    check_judged(manifest, precision)


def check_judged(manifest, precision):
    """Beside each plan stands what was judged of its graph, and how; the CPU's verdict is another."""
    for plan in manifest.plans:
        if precision == "fp32":
            assert plan.judged is None
            continue
        assert plan.judged["arithmetic"] == "f16" and plan.judged["passed"]
        assert plan.judged["images"] == len(GATE.images) and plan.judged["data"] == manifest.gate["data"]
        assert plan.judged["how"] == "emulated on a CPU: every node's result rounded to f16, sums in f32"
        # Means over six pictures may be equal by chance; that the CPU's verdict is another, its arithmetic says.
        assert precision == "fp16" or plan.judged["arithmetic"] != manifest.execution
        assert plan.judged["gate_min"] == 0.9
    lines = [line for line in gate_lines(manifest) if line.startswith("plan:")]
    assert len(lines) == (precision != "fp32")
    assert all("rounded to f16" in line and all(plan.file in line for plan in manifest.plans) for line in lines)


def check_execution(manifest, precision):
    """Whatever the processor does, the graph's types and its execution are told apart."""
    cpu = manifest.census["cpu"]
    if precision == "int8":
        assert cpu["int8_layers"] >= 9
        assert set(cpu["milliseconds"]) >= {"fp32", "int8"}
    if precision == "fp16":
        executed = cpu["layers"]["Convolution"]
        noted = any("runs the FP16 graph in f32" in note for note in manifest.notes)
        assert (manifest.execution, set(executed)) == (("f32", {"f32"}) if noted else ("f16", {"f16"}))
        assert manifest.gate["arithmetic"] == cpu["asked"] == manifest.execution
        assert noted or cpu_arithmetic().fp16


def test_only_the_bundled_recipe_is_known_to_be_chosen_by_other_images(tmp_path, monkeypatch):
    asked = []

    def recipe(graph, wanted, *rest):
        asked.append(wanted)
        raise GateError("far enough")

    monkeypatch.setattr(build_module, "recipe_from_graph", recipe)
    monkeypatch.setattr(build_module, "check_cpu", lambda precision: None)
    bundled = BuildRequest(out=tmp_path / "e", precision="int8", targets=("cpu",))
    for request in (
        bundled,
        dataclasses.replace(bundled, gate_images=GATE),
        dataclasses.replace(bundled, recipe=demo_graph().parent),
    ):
        with pytest.raises(GateError, match="far enough"):
            build_engine(request)
    assert [(wanted.recorded is not None, wanted.recorded_apart) for wanted in asked] == [
        (True, True),
        (True, False),
        (True, False),
    ]


def test_the_certificate_says_where_its_pictures_chose_the_precision(graph, tmp_path):
    for precision, chose in (("int8", True), ("fp16", False)):
        made = built(graph, tmp_path / precision, precision, gate=Gate(0.5, 0.5))
        gate = made.manifest.gate | ({"promise": None} if chose else {})
        made = dataclasses.replace(made, manifest=dataclasses.replace(made.manifest, gate=gate))
        said = certify_built(made)["reference"]["what"]
        assert said.endswith("this says nothing about other pictures") is chose and "gate pictures" in said


def test_the_gates_line_names_the_arithmetic_of_an_int8_engine_as_reports_do(graph, tmp_path):
    made = built(graph, tmp_path / "e", "fp16")
    gate = {**made.manifest.gate, "arithmetic": "bf16"}
    for precision, words in (("int8", ", in i8+bf16: passed"), ("bf16", ", in bf16: passed")):
        manifest = dataclasses.replace(made.manifest, precision=precision, execution="bf16", gate=gate)
        text = build_text(
            tmp_path / "e", manifest, {"unchanged": False, "seconds": 1.0, "certificate": certify_built(made)}
        )
        assert words in text
        judged = dataclasses.replace(manifest, gate={**gate, "f32": {"mean": 0.99, "minimum": 0.8, "passed": False}})
        assert (
            "in i8+f32 mean 0.9900, minimum 0.8000: NOT passed; so the engine runs on CPUs with BF16 only"
            in (gate_lines(judged)[-1])
        )
    older = {name: value for name, value in gate.items() if name not in ("promise", "arithmetic")}
    assert len(gate_lines(dataclasses.replace(made.manifest, gate=older))) == 1
    assert gate_lines(dataclasses.replace(made.manifest, gate=None)) == []


@pytest.mark.skipif(not cpu_arithmetic().fp16, reason="OpenVINO has no FP16 arithmetic on this CPU")
def test_an_f16_engine_is_built_certified_and_run_in_f16(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_choice, "latencies", lambda *_: (10.0, 5.0))
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    images = scenes(2)
    masks = Session(read_graph(graph)).probabilities(images)
    np.savez(graph.with_suffix(".golden.npz"), images=images, probabilities=masks)
    out = tmp_path / "e"
    made = built(graph, out, "fp16")
    assert made.manifest.execution == "f16" and made.manifest.gate["arithmetic"] == "f16"
    assert made.manifest.census["cpu"]["layers"]["Convolution"].keys() == {"f16"}
    assert made.manifest.census["cpu"]["milliseconds"] == {"f32": 10.0, "f16": 5.0}
    text = build_text(out, made.manifest, {"unchanged": False, "seconds": 1.0, "certificate": certify_built(made)})
    assert "convolutions in f16" in text and ", in f16: passed" in text
    assert "speed: 5.0 ms, F32 10.0 ms here (0.50 of the time)" in text
    assert read_json(out / "parity.json")["compared"]["arithmetic"] == "f16"
    with load(out, device="cpu") as engine:
        assert (engine.runner.info.execution, engine.notice) == ("f16", "")


def test_second_build_is_a_hit(graph, tmp_path):
    out = tmp_path / "e"
    first = build(graph, out, "fp32")
    before = (out / "engine.json").stat().st_mtime_ns
    said = []
    again = built(graph, out, "fp32", progress=lambda phase, *_: said.append(phase))
    assert again.manifest == first and again.unchanged and said == []
    assert (out / "engine.json").stat().st_mtime_ns == before
    build(graph, out, "fp32", force=True)
    assert (out / "engine.json").stat().st_mtime_ns > before


def test_damaged_engine_is_built_again(graph, tmp_path):
    out = tmp_path / "e"
    build(graph, out, "fp32")
    with (out / "model.onnx").open("ab") as stream:
        stream.write(b"!")
    manifest = build(graph, out, "fp32")
    verify_files(out, manifest)


def test_other_options_are_no_hit(graph, tmp_path):
    out = tmp_path / "e"
    first = build(graph, out)
    other = build(graph, out, gate_images=ImageSet(scenes(5, seed=77), "others"))
    assert other.source["recipe_key"] != first.source["recipe_key"]
    assert other.gate["images"] == 5


@needs_rtx
def test_a_plan_whose_emulated_graph_misses_the_gate_is_not_built(graph, tmp_path, monkeypatch):
    class Wrong:
        def probabilities(self, images):
            return np.full(images.shape[:3], 255, np.uint8)

    monkeypatch.setattr(plan_gate, "emulated_session", lambda typed: Wrong())
    monkeypatch.setattr(tensorrt, "build_plan", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(GateError, match=r"a GPU's plan \(fp16, emulated\): the accuracy gate is not met") as caught:
        build(graph, tmp_path / "e", "fp16", ("cpu", "tensorrt-rtx"), sms=(89,))
    assert caught.value.exit_code == 3 and "--target cpu" in caught.value.fix
    assert not (tmp_path / "e").exists()


@needs_rtx
def test_plans_for_other_devices_stay(graph, tmp_path):
    out = tmp_path / "e"
    build(graph, out, "fp32", ("cpu", "tensorrt-rtx"), sms=(80,))
    manifest = build(graph, out, "fp32", ("tensorrt-rtx",), sms=(89,))
    assert sorted(p.sm for p in manifest.plans) == [80, 89]
    assert manifest.targets == ["cpu", "tensorrt-rtx"]
    verify_files(out, manifest)


def test_gate_that_is_missed_leaves_nothing(graph, tmp_path, monkeypatch):
    out = tmp_path / "e"
    # Clipped to a thousandth, every block ruins the masks.
    monkeypatch.setattr("gms_rt.precision.calibrators.clip", lambda histogram, method: histogram.top / 1000)
    with pytest.raises(GateError) as caught:
        build(graph, out, "int8", calibrator="minmax", gate=Gate(0.999, 0.999))
    assert caught.value.exit_code == 3 and "block, damage, decision" in caught.value.what
    assert not out.exists()


def test_usage_mistakes(graph, tmp_path):
    with pytest.raises(UsageError, match="unknown precision"):
        build(graph, tmp_path / "e", "fp8")
    with pytest.raises(UsageError, match="unknown target 'gpu'"):
        build(graph, tmp_path / "e", targets=("gpu",))
    with pytest.raises(UsageError, match="a CPU engine has no SM"):
        build(graph, tmp_path / "e", sms=(89,))
    with pytest.raises(UsageError, match="--calib"):
        build(graph, tmp_path / "e", "int8", calibration=None)
    with pytest.raises(UsageError, match="also calibration images"):
        build(graph, tmp_path / "e", "int8", gate_images=CALIBRATION)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists and is not an engine"):
        build(graph, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_an_engine_gets_the_reference_of_a_graph_that_was_exported_anew(graph, tmp_path):
    pictures, others = scenes(6, seed=31), scenes(6, seed=32)
    others[0] = pictures[0]
    gate = ImageSet(np.concatenate([GATE.images, pictures[:1]]), "with one reference picture")

    def exported(images):
        np.savez(graph.with_suffix(".golden.npz"), images=images, probabilities=images[..., 0])

    exported(pictures)
    assert not built(graph, tmp_path / "e", gate_images=gate, gate=Gate(0.0, 0.0)).unchanged
    assert built(graph, tmp_path / "e", gate_images=gate, gate=Gate(0.0, 0.0)).unchanged
    exported(others)
    assert not built(graph, tmp_path / "e", gate_images=gate, gate=Gate(0.0, 0.0)).unchanged
    assert np.array_equal(read_golden(tmp_path / "e/golden.npz").images, others[1:])


def test_golden_travels_with_its_hash(graph, tmp_path):
    images = scenes(2)
    np.savez(graph.with_suffix(".golden.npz"), images=images, probabilities=images[..., 0])
    manifest = build(graph, tmp_path / "e", "fp32")
    assert "golden.npz" in manifest.files
    assert not manifest.notes


def test_engine_runs_for_its_batch(graph, tmp_path):
    path = tiny_graph(tmp_path, batch="n")
    manifest = build(path, tmp_path / "e", "fp32", batch=4)
    assert manifest.batch == 4
    assert engine_fits(manifest)[0].fits


def test_golden_formats_are_still_read(tmp_path):
    folder = ROOT / "tests/golden/engine-v1"
    manifest = read_manifest(folder)
    assert manifest.precision == "int8" and manifest.plans[0].sm == 89
    assert manifest.census["graph"]["qdq_pairs"] == 9
    recipe = read_recipe(folder)
    assert recipe.int8[0] == "encoder/down" and recipe.weight_levels == 64
    # What is read is written in the same form: nothing of the format is lost on the way.
    later = {"cpu_only": [], "channels": {}, "spans": {}, "rounding": {}, "returned": [], "plan_kept": {}}
    assert json.loads((folder / "precision.json").read_text()) | later == dataclasses.asdict(recipe)
    write_manifest(tmp_path, manifest)
    assert json.loads((tmp_path / "engine.json").read_text()) == json.loads((folder / "engine.json").read_text())


def test_recorded_recipe_is_applied_and_judged(graph, tmp_path):
    build(graph, tmp_path / "a", "int8", gate=Gate(0.95, 0.9))
    recipe = read_recipe(tmp_path / "a")
    manifest = build(graph, tmp_path / "b", "int8", calibration=None, recipe=recipe, gate=Gate(0.95, 0.9))
    assert manifest.gate["passed"]
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()
    spoiled = dataclasses.replace(recipe, ranges={name: value / 1000 for name, value in recipe.ranges.items()})
    with pytest.raises(GateError):
        build(graph, tmp_path / "c", "int8", calibration=None, recipe=spoiled, gate=Gate(0.95, 0.9))
    # With images to calibrate on, a recipe that misses here is replaced by one that holds.
    assert build(graph, tmp_path / "d", "int8", recipe=spoiled, gate=Gate(0.95, 0.9)).gate["passed"]
    assert read_recipe(tmp_path / "d").ranges != spoiled.ranges
    with pytest.raises(UsageError, match="another graph"):
        build(graph, tmp_path / "c", "int8", recipe=dataclasses.replace(recipe, graph_sha256="00"))
    with pytest.raises(UsageError, match="is for int8, not fp16"):
        build(graph, tmp_path / "c", "fp16", recipe=recipe)


def test_bundled_recipe_is_for_the_bundled_graph():
    from gms_rt.demo.bundled import demo_graph
    from gms_rt.engine.build import recorded_recipe

    recipe = recorded_recipe(demo_graph())
    assert recipe is not None, "run calibration/record_demo.py after changing the bundled model"
    assert {row["decision"] for row in recipe.blocks} == {"int8", "returned"}
    assert recipe.precision == "int8"


def test_a_remainder_that_no_layer_has_is_refused(graph, monkeypatch):
    """An engine is called i8+bf16 by what the runtime reports, not by what was asked for."""

    class Reported:
        layers: ClassVar = {"Convolution": {"u8": 3}, "MVN": {"bf16": 1}}

        def __init__(self, *_, **options):
            assert options["execution"] == "bf16"

        def executed_layers(self):
            return self.layers

        def layer_report(self):
            return []

    monkeypatch.setattr(openvino, "Session", Reported)
    typed, recipe = read_graph(graph), types.SimpleNamespace(returned=[])
    found = openvino.inspect_execution(typed, CpuChoice("bf16"), 3, recipe)
    assert found["int8_layers"] == 3
    monkeypatch.setattr(Reported, "layers", {"Convolution": {"u8": 3}, "MVN": {"f32": 1}})
    with pytest.raises(GmsError, match="int8 with the rest in bf16, but the CPU runtime runs no layer in bf16"):
        openvino.inspect_execution(typed, CpuChoice("bf16"), 3, recipe)
