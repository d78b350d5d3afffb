"""Engine folders: what is built, recorded, kept, refused, and found unchanged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_graph
from support.trees import ROOT

from gms_rt.engine import targets, tensorrt, timing_cache
from gms_rt.engine.build import build_engine
from gms_rt.engine.manifest import read_manifest, verify_files
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import fits
from gms_rt.errors import ArtifactError, DeviceError, GateError, GmsError, MissingExtraError, UsageError
from gms_rt.graph.graph import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe import Recipe, read_recipe, write_recipe
from gms_rt.runtime.device import Cpu, Gpu, Machine, cpu_execution
from gms_rt.runtime.tensorrt_module import load_tensorrt, tensorrt_installed

CALIBRATION = ImageSet(scenes(4, seed=11), "scenes 11")
GATE = ImageSet(scenes(6, seed=12), "scenes 12")
RTX = tensorrt_installed("tensorrt-rtx")
needs_rtx = pytest.mark.skipif(not RTX, reason="the tensorrt-rtx extra is not installed")
PLAIN = Cpu("plain cpu", "x86_64", 2, ("avx2",))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def graph(tmp_path):
    return tiny_graph(tmp_path)


def build(graph, out, precision="fp16", targets=("cpu",), **options):
    return built(graph, out, precision, targets, **options).manifest


def built(graph, out, precision="fp16", targets=("cpu",), progress=None, **options):
    images = {"calibration": CALIBRATION, "gate_images": GATE}
    return build_engine(BuildRequest(graph, out, precision, targets, **(images | options)), progress)


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


def check_execution(manifest, precision):
    """Whatever the processor does, the graph's types and its execution are told apart."""
    cpu = manifest.census["cpu"]
    if precision == "int8":
        assert cpu["int8_layers"] >= 9
        assert set(cpu["milliseconds"]) == {"fp32", "int8"}
    if precision == "fp16":
        executed = cpu["layers"]["Convolution"]
        assert ("f32" in executed) == any("no FP16 arithmetic" in note for note in manifest.notes)


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
def test_plans_for_other_devices_stay(graph, tmp_path):
    out = tmp_path / "e"
    build(graph, out, "fp32", ("cpu", "tensorrt-rtx"), sms=(80,))
    manifest = build(graph, out, "fp32", ("tensorrt-rtx",), sms=(89,))
    assert sorted(p.sm for p in manifest.plans) == [80, 89]
    assert manifest.targets == ["cpu", "tensorrt-rtx"]
    verify_files(out, manifest)


@needs_rtx
@pytest.mark.parametrize(("sm", "words"), [(87, "JetPack"), (90, "--target tensorrt"), (110, "JetPack"), (61, "SM75")])
def test_refused_sms_name_reason_and_alternative(graph, tmp_path, sm, words):
    with pytest.raises(DeviceError, match=f"cannot build for SM{sm}") as caught:
        build(graph, tmp_path / "e", "fp32", ("tensorrt-rtx",), sms=(sm,))
    assert caught.value.exit_code == 4 and words in str(caught.value.fix)
    assert not (tmp_path / "e").exists()


def test_full_tensorrt_without_its_module_names_the_extra(graph, tmp_path):
    if tensorrt_installed("tensorrt"):
        pytest.skip("full TensorRT is installed here")
    with pytest.raises(MissingExtraError, match=r"gms-rt\[tensorrt\]"):
        build(graph, tmp_path / "e", "fp32", ("tensorrt",))


class FullTensorRt:
    """As much of a module as the choice of SMs looks at: full TensorRT has no ahead-of-time targets."""


def test_full_tensorrt_builds_for_the_gpu_it_sees():
    none = Machine(PLAIN, (), None, "no NVIDIA driver", {})
    with pytest.raises(DeviceError, match="this machine has none"):
        targets.choose_sms("tensorrt", FullTensorRt, (), none)
    orin = Machine(PLAIN, (Gpu(0, "Orin", 87, 1),), "12.6", "", {})
    assert targets.choose_sms("tensorrt", FullTensorRt, (), orin) == (87,)
    assert targets.choose_sms("tensorrt", FullTensorRt, (87,), orin) == (87,)
    with pytest.raises(DeviceError, match="cannot build for SM89 here"):
        targets.choose_sms("tensorrt", FullTensorRt, (89,), orin)


@needs_rtx
def test_ahead_of_time_builder_prefers_the_gpus_here():
    trt = load_tensorrt("tensorrt-rtx", "testing")
    known = targets.ahead_of_time_sms(trt)
    assert {75, 80, 86, 89} <= set(known)
    here = Machine(PLAIN, (Gpu(0, "A", 86, 1), Gpu(1, "B", 90, 1)), "13.0", "", {})
    assert targets.choose_sms("tensorrt-rtx", trt, (), here) == (86,)
    bare = Machine(PLAIN, (), None, "no driver", {})
    assert targets.choose_sms("tensorrt-rtx", trt, (), bare) == (89,)


@needs_rtx
def test_bf16_plan_is_bf16(graph, tmp_path):
    manifest = build(graph, tmp_path / "e", "bf16", ("tensorrt-rtx",), sms=(89,))
    network = manifest.census[manifest.plans[0].file]["network"]
    assert network["CONVOLUTION"] == {"BF16": 11}
    # TensorRT-RTX has no BF16 deconvolution; the recipe says so instead of hiding it.
    assert network["DECONVOLUTION"] == {"FLOAT": 1}
    assert "no BF16" in read_recipe(tmp_path / "e").kept["decoder/up"]


def test_bf16_on_a_cpu_without_it_is_refused():
    with pytest.raises(DeviceError, match="no BF16 arithmetic") as caught:
        cpu_execution("bf16", Machine(PLAIN, (), None, "", {}))
    assert "--precision int8" in str(caught.value.fix)
    able = dataclasses.replace(PLAIN, features=("avx512_bf16",))
    assert cpu_execution("bf16", Machine(able, (), None, "", {})) == "bf16"
    assert cpu_execution("fp16", Machine(PLAIN, (), None, "", {})) == "f32"


@needs_rtx
def test_network_of_another_precision_is_refused(graph):
    built = tensorrt.build_plan(read_graph(graph), "tensorrt-rtx", 89)
    tensorrt.check_network(built, "fp32", "fp32", 0)
    with pytest.raises(GmsError, match="asked for fp16"):
        tensorrt.check_network(built, "fp16", "fp16", 0)
    with pytest.raises(GmsError, match="asked for int8"):
        tensorrt.check_network(built, "int8", "fp32", 3)


@needs_rtx
def test_builder_reports_phases_and_refusals(graph):
    phases = []
    tensorrt.build_plan(read_graph(graph), "tensorrt-rtx", 80, progress=lambda *step: phases.append(step))
    assert phases and all(phase.startswith("tensorrt-rtx SM80: ") for phase, _, _ in phases)
    foreign = read_graph(graph)
    node = next(n for n in foreign.nodes if n.op_type == "Softmax")
    node.op_type, node.domain = "NoSuchOperator", "nowhere"
    with pytest.raises(GmsError, match="tensorrt-rtx refuses the graph"):
        tensorrt.build_plan(foreign, "tensorrt-rtx", 80)


def test_inspector_json_of_two_versions():
    old = {"Layers": [{"Outputs": [{"Format/Datatype": "Two wide channel vectorized row major FP16 format"}]}]}
    new = {"Layers": [{"Outputs": [{"Format": "Row major", "Datatype": "Int8"}]}, {"Outputs": []}]}
    assert tensorrt.count_inspected(old) == {"fp16": 1}
    assert tensorrt.count_inspected(new) == {"int8": 1}
    assert tensorrt.count_inspected({"Layers": ["only a name"]}) == {}


def test_gate_that_is_missed_leaves_nothing(graph, tmp_path, monkeypatch):
    out = tmp_path / "e"
    # Clipped to a thousandth, every block ruins the masks.
    monkeypatch.setattr("gms_rt.precision.search.clip", lambda histogram, method: histogram.top / 1000)
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
    assert fits(manifest)[0].fits


def test_recipe_survives_the_disk_and_refuses_the_future(tmp_path):
    recipe = Recipe("int8", "ab", int8=["x"], kept={"y": "magnitude 70000"}, ranges={"t": 1.5}, calibrator="mse")
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe
    data = json.loads((tmp_path / "precision.json").read_text())
    for change in ({"version": 3}, {"format": "other"}, {"surprise": 1}, {"precision": "fp8"}):
        (tmp_path / "precision.json").write_text(json.dumps(data | change))
        with pytest.raises(ArtifactError):
            read_recipe(tmp_path)


def test_golden_formats_are_still_read():
    folder = ROOT / "tests/golden/engine-v1"
    manifest = read_manifest(folder)
    assert manifest.precision == "int8" and manifest.plans[0].sm == 89
    assert manifest.census["graph"]["qdq_pairs"] == 9
    recipe = read_recipe(folder)
    assert recipe.int8[0] == "encoder/down" and recipe.weight_levels == 64
    # What is read is written in the same form: nothing of the format is lost on the way.
    later = {"cpu_only": [], "channels": {}}  # what version 2 added
    assert json.loads((folder / "precision.json").read_text()) | later == dataclasses.asdict(recipe)
    assert json.loads((folder / "engine.json").read_text()) == dataclasses.asdict(manifest)


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


def test_timing_cache_places(monkeypatch, tmp_path):
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "c"))
    place = timing_cache.shared_path("tensorrt", "10.3", 87)
    assert timing_cache.stored(place) == b""
    timing_cache.keep(place, b"times")
    assert timing_cache.stored(tmp_path / "absent", place) == b"times"
    monkeypatch.delenv("GMS_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert timing_cache.cache_root() == tmp_path / "gms-rt"


@pytest.mark.slow
@needs_rtx
def test_full_sd_vae_architecture_builds_at_fp16(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from gms_rt.export.fuse import graph_from_model as fuse

    gms = sd_vae_pipeline()
    path = fuse(gms, tmp_path / "sd.onnx", source={"kind": "random weights"}, height=224, width=224)
    graph = read_graph(path)
    from gms_rt.graph.layer_counts import census
    from gms_rt.precision.floating import low_graph

    typed = low_graph(graph, "fp16", ())
    assert set(census(typed)["compute"]["Conv"]) == {"fp16"}
    built = tensorrt.build_plan(typed, "tensorrt-rtx", 80)
    tensorrt.check_network(built, "fp16", "fp16", 0)
    # 84 million parameters at two bytes.
    assert 150e6 < len(built.data) < 260e6


def sd_vae_pipeline():
    """The whole pipeline at the full SD-VAE's architecture, with random weights."""
    import torch
    from diffusers import AutoencoderKL

    from gms_rt.model.diffusers_tokenizer import wrap_autoencoder
    from gms_rt.model.gms import Gms
    from gms_rt.model.lmm import LatentMapper

    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )
    return Gms(wrap_autoencoder(autoencoder, "sd-vae", "random weights"), LatentMapper()).eval()


def test_bundled_recipe_is_for_the_bundled_graph():
    from gms_rt.demo.bundled import demo_graph
    from gms_rt.engine.build import recorded_recipe

    recipe = recorded_recipe(demo_graph())
    assert recipe is not None, "run calibration/record_demo.py after changing the bundled model"
    assert {row["decision"] for row in recipe.blocks} == {"int8", "returned"}
    assert recipe.precision == "int8"


def test_several_precisions_share_the_fp32_masks(graph, tmp_path, monkeypatch):
    """The reference is computed once for a graph and its gate images, and again for others."""
    from gms_rt.precision import recipe_from_graph as recipes

    seen = []

    class Counted(Session):
        def __init__(self, typed, **options):
            super().__init__(typed, **options)
            seen.append(typed.model.graph.ByteSize())

    monkeypatch.setattr(recipes, "Session", Counted)
    monkeypatch.setattr(recipes, "_LATEST", {})
    for name in ("a", "b"):
        build(graph, tmp_path / name, "fp16")
    assert len(seen) == 3  # one reference, two engines
    build(graph, tmp_path / "c", "fp16", gate_images=ImageSet(scenes(4, seed=77), "others"))
    assert len(seen) == 5
