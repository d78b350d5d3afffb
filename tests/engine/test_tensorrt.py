"""Plans: for which devices, of which precision, and what is told when a builder refuses."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from support.bench_runner import SIDE, ThresholdRunner
from support.fake_builder import FakeBuilderModule
from support.jetson_boards import AGX_ORIN, ORIN_NANO, machine_from_files
from support.plan_engines import PLAN, plan_engine
from support.small_builds import PLAIN_CPU, build, needs_rtx
from support.trees import plain_manifest

from gms_rt.artifacts import sha256_bytes
from gms_rt.cli.engine_text import plan_text
from gms_rt.engine import existing, folder, plan_speed, targets, tensorrt, timing_cache, user_cache
from gms_rt.engine.manifest import Plan, read_manifest, write_manifest
from gms_rt.engine.trust import remember_plan
from gms_rt.errors import DeviceError, GmsError, MissingExtraError, UsageError
from gms_rt.graph.layer_counts import layer_counts
from gms_rt.graph.read import read_graph
from gms_rt.precision.floating import low_precision_graph
from gms_rt.precision.recipe import read_recipe
from gms_rt.runtime import tensorrt_module
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.runtime.device import Gpu, Machine
from gms_rt.runtime.tensorrt_module import load_tensorrt, tensorrt_installed


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


def test_on_a_jetson_a_missing_tensorrt_names_apt_and_no_extra(monkeypatch):
    if tensorrt_installed("tensorrt"):
        pytest.skip("full TensorRT is installed here")
    monkeypatch.setattr(tensorrt_module, "probe", lambda: machine_from_files(AGX_ORIN))
    with pytest.raises(DeviceError, match="needs the TensorRT of this Jetson's JetPack") as caught:
        load_tensorrt("tensorrt", "building for tensorrt")
    assert caught.value.fix == "run: sudo apt install tensorrt python3-libnvinfer"


class FullTensorRt:
    """As much of a module as the choice of SMs looks at: full TensorRT has no ahead-of-time targets."""


def test_full_tensorrt_builds_for_the_gpu_it_sees():
    none = Machine(PLAIN_CPU, (), None, "no NVIDIA driver", {})
    with pytest.raises(DeviceError, match="this machine has none"):
        targets.choose_sms("tensorrt", FullTensorRt, (), none)
    orin = Machine(PLAIN_CPU, (Gpu(0, "Orin", 87, 1),), "12.6", "", {})
    assert targets.choose_sms("tensorrt", FullTensorRt, (), orin) == (87,)
    assert targets.choose_sms("tensorrt", FullTensorRt, (87,), orin) == (87,)
    with pytest.raises(DeviceError, match="cannot build for SM89 here"):
        targets.choose_sms("tensorrt", FullTensorRt, (89,), orin)


@needs_rtx
def test_ahead_of_time_builder_prefers_the_gpus_here():
    trt = load_tensorrt("tensorrt-rtx", "testing")
    known = targets.ahead_of_time_sms(trt)
    assert {75, 80, 86, 89} <= set(known)
    here = Machine(PLAIN_CPU, (Gpu(0, "A", 86, 1), Gpu(1, "B", 90, 1)), "13.0", "", {})
    assert targets.choose_sms("tensorrt-rtx", trt, (), here) == (86,)
    bare = Machine(PLAIN_CPU, (), None, "no driver", {})
    assert targets.choose_sms("tensorrt-rtx", trt, (), bare) == (89,)


WITHOUT_OPENVINO = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name=name)
sys.meta_path.insert(0, Absent())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "openvino" else found(name, package)
from gms_rt.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@needs_rtx
def test_on_a_machine_without_openvino_only_what_runs_on_the_cpu_is_refused(graph, tmp_path):
    def build_in_a_process(precision):
        words = ["build", str(graph), "--precision", precision, "--target", "tensorrt-rtx", "--sm", "80"]
        command = [sys.executable, "-c", WITHOUT_OPENVINO, *words, "--out", str(tmp_path / precision)]
        clean = {name: value for name, value in os.environ.items() if name != "GMS_RT_OPENVINO"}
        return subprocess.run(command, capture_output=True, text=True, env=clean)

    done = build_in_a_process("fp32")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "fp32").plans[0].sm == 80
    done = build_in_a_process("fp16")  # its ranges and its gate are found on the CPU
    assert done.returncode == 1
    assert "running a graph on the CPU needs OpenVINO" in done.stderr and "pip install openvino" in done.stderr
    assert "Traceback" not in done.stderr


@needs_rtx
def test_a_gpu_that_tensorrt_rtx_does_not_know_is_not_built_for_in_silence(monkeypatch):
    h200 = Machine(PLAIN_CPU, (Gpu(0, "NVIDIA H200", 90, 1),), "13.0", "", {})
    trt = load_tensorrt("tensorrt-rtx", "testing")
    with pytest.raises(DeviceError, match=r"does not run on this machine's GPU \(NVIDIA H200, SM90\)") as caught:
        targets.choose_sms("tensorrt-rtx", trt, (), h200)
    assert "full TensorRT" in caught.value.fix and "--sm" in caught.value.fix
    assert targets.choose_sms("tensorrt-rtx", trt, (86,), h200) == (86,)  # for another machine
    monkeypatch.setattr(targets, "tensorrt_installed", lambda flavour: flavour == "tensorrt-rtx")
    assert targets.default_targets("fp32", h200) == ("cpu",)
    assert targets.default_targets("fp32", Machine(PLAIN_CPU, (), None, "", {})) == ("cpu", "tensorrt-rtx")


def test_a_bare_build_leaves_the_cpu_out_where_openvino_is_not_there(monkeypatch):
    gone = CpuArithmetic(None, None, problem="OpenVINO is not installed", installed=False)
    monkeypatch.setattr(targets, "cpu_arithmetic", lambda: gone)
    monkeypatch.setattr(targets, "tensorrt_installed", lambda flavour: flavour == "tensorrt")
    orin = Machine(PLAIN_CPU, (Gpu(0, "Orin", 87, 1),), "12.6", "", {})
    assert targets.default_targets("fp32", orin) == ("tensorrt",)


def fake_build(monkeypatch, graph, machine, sm, *, rtx=False):
    module = FakeBuilderModule(rtx=rtx)
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda *_: module)
    monkeypatch.setattr(tensorrt, "probe", lambda: machine)
    monkeypatch.setattr(tensorrt, "current_device", module.current_device)
    return module, tensorrt.build_plan(read_graph(graph), "tensorrt-rtx" if rtx else "tensorrt", sm)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "c"))


def test_of_several_gpus_the_plan_s_own_is_current_while_it_is_built(monkeypatch, graph, own_cache):
    machine = Machine(PLAIN_CPU, (Gpu(0, "L4", 89, 1), Gpu(1, "A100", 80, 1)), "13.0", "", {})
    module, plan = fake_build(monkeypatch, graph, machine, 80)
    assert module.built_on == [(1,)] and module.current == []
    assert plan.device == "A100" and module.asked["inspected"]
    module, plan = fake_build(monkeypatch, graph, machine, 89)
    assert module.built_on == [(0,)] and plan.device == "L4"


def test_a_plan_for_another_machine_is_not_opened_here(monkeypatch, graph, own_cache):
    machine = Machine(PLAIN_CPU, (Gpu(0, "L4", 89, 1),), "13.0", "", {})
    module, plan = fake_build(monkeypatch, graph, machine, 80, rtx=True)
    assert module.built_on == [()] and module.asked["sm"] == 80
    assert plan.inspected is None and "inspected" not in module.asked


def test_memory_that_the_system_needs_is_not_tensorrt_s(monkeypatch, graph, own_cache):
    for integrated, limit in ((True, 2**32), (False, None)):
        machine = Machine(PLAIN_CPU, (Gpu(0, "Orin", 87, 2**33, integrated=integrated),), "12.6", "", {})
        module, _ = fake_build(monkeypatch, graph, machine, 87)
        assert module.asked.get("workspace") == limit


def test_tensorrt_rtx_plans_can_be_captured_and_full_tensorrt_has_no_such_flag(monkeypatch, graph, own_cache):
    none = Machine(PLAIN_CPU, (), None, "", {})
    module, _ = fake_build(monkeypatch, graph, none, 80, rtx=True)
    assert module.asked["flags"] == ["user allocation"]
    module, _ = fake_build(monkeypatch, graph, none, 80)
    assert "flags" not in module.asked
    assert len(set(map(id, module.loggers))) == 1  # builder and parser have the one logger


@needs_rtx
def test_the_real_tensorrt_rtx_builds_with_user_allocation(graph):
    trt = load_tensorrt("tensorrt-rtx", "testing")
    assert hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION") and hasattr(
        trt.IExecutionContext, "is_stream_capturable"
    )
    assert len(tensorrt.build_plan(read_graph(graph), "tensorrt-rtx", 89).data) > 1000


def int8_build(graph, tmp_path, monkeypatch, times, machine):
    """An INT8 build where a GPU "is here", with fake plans that take so many milliseconds."""

    def built_plan(typed, flavour, sm, **_):
        quantised = any(node.op_type == "QuantizeLinear" for node in typed.nodes)
        network = {"CONVOLUTION": {"HALF": 1}, "QUANTIZE": {"INT8": 9}}
        return tensorrt.BuiltPlan(b"int8" if quantised else b"fp16", sm, "11.4", 1.0, "13.0", b"", network, None, [])

    def milliseconds(plans, where, flavour, images, gpu):
        assert plans == (b"int8", b"fp16") and images.shape[0] == 1 and gpu.name == "A100"
        if isinstance(times, Exception):
            raise times
        return times

    monkeypatch.setattr(folder, "probe", lambda: machine)
    monkeypatch.setattr(folder, "plan_milliseconds", milliseconds)
    monkeypatch.setattr(tensorrt, "build_plan", built_plan)
    monkeypatch.setattr(targets, "load_tensorrt", lambda *_: FullTensorRt)
    monkeypatch.setattr(targets, "probe", lambda: machine)
    return build(graph, tmp_path / "e", "int8", ("tensorrt",), calibrator="minmax")


A100 = Machine(PLAIN_CPU, (Gpu(0, "A100", 80, 1),), "13.0", "", {})


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ((1.0, 2.0), ""),
        ((2.5, 2.0), "INT8 is not faster than FP16 on A100: 2.50 ms against 2.00 ms"),
        (GmsError("no such kernel"), "whether INT8 is faster than FP16 is not known: no such kernel"),
    ],
)
def test_int8_that_gains_nothing_on_a_gpu_is_told_at_build(graph, tmp_path, monkeypatch, times, told):
    manifest = int8_build(graph, tmp_path, monkeypatch, times, A100)
    assert any(told in note for note in manifest.notes) if told else not any("FP16" in n for n in manifest.notes)
    measured = manifest.census[manifest.plans[0].file].get("milliseconds")
    assert measured == (None if isinstance(times, Exception) else {"fp16": times[1], "int8": times[0]})


def test_two_plans_are_timed_in_turn(monkeypatch):
    opened = []

    class Timed(ThresholdRunner):
        def __init__(self, where, flavour, settings, *, content):
            super().__init__(delay={b"int8": 0.003, b"fp16": 0.002}[content])
            assert (settings.batch, settings.height, settings.width, settings.device) == (2, SIDE, SIDE, 1)
            opened.append(self)

    monkeypatch.setattr(plan_speed, "TensorRtRunner", Timed)
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    times = plan_speed.plan_milliseconds((b"int8", b"fp16"), Path("p"), "tensorrt", images, Gpu(1, "A100", 80, 1))
    assert times == pytest.approx((3.0, 2.0))
    with pytest.raises(UsageError, match="closed"):
        opened[0].infer(images)


@needs_rtx
def test_bf16_plan_is_bf16(graph, tmp_path):
    manifest = build(graph, tmp_path / "e", "bf16", ("tensorrt-rtx",), sms=(89,))
    network = manifest.census[manifest.plans[0].file]["network"]
    assert network["CONVOLUTION"] == {"BF16": 11}
    # TensorRT-RTX has no BF16 deconvolution; the recipe says so instead of hiding it.
    assert network["DECONVOLUTION"] == {"FLOAT": 1}
    assert "no BF16" in read_recipe(tmp_path / "e").kept["decoder/up"]


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


def test_a_plan_says_on_which_board_its_kernels_were_timed():
    board = machine_from_files(AGX_ORIN)
    assert tensorrt.timed_on(board, 87) == "NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN"
    assert tensorrt.timed_on(board, 86) is None
    plugged = machine_from_files(AGX_ORIN, Gpu(0, "Orin", 87, 1, integrated=True), Gpu(1, "RTX A6000", 86, 1))
    assert tensorrt.timed_on(plugged, 86) == "RTX A6000"
    plan = Plan("tensorrt", "p", "0" * 64, 1, 87, "10.3", 0.1, device="a board, MAXN")
    assert plan_text(plan) == "tensorrt 10.3, built on a board, MAXN"
    assert plan_text(dataclasses.replace(plan, device=None)) == "tensorrt 10.3"


def test_timing_cache_places(monkeypatch, tmp_path):
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "c"))
    place = timing_cache.shared_path("tensorrt", "10.3", 87)
    assert timing_cache.read_timing_cache(place) == b""
    timing_cache.keep(place, b"times")
    assert timing_cache.read_timing_cache(place) == b"times"
    machines = [Machine(PLAIN_CPU, (), None, "", {}), machine_from_files(AGX_ORIN), machine_from_files(ORIN_NANO)]
    assert len({timing_cache.shared_path("tensorrt", "10.3", 87, machine) for machine in machines}) == 3
    cards = [Machine(PLAIN_CPU, (Gpu(0, name, 86, 1),), "13.0", "", {}) for name in ("RTX 3060", "RTX 3090")]
    names = {timing_cache.shared_path("tensorrt", "10.3", 86, machine).name for machine in cards}
    assert names == {"tensorrt-10.3-sm86-rtx-3060.cache", "tensorrt-10.3-sm86-rtx-3090.cache"}
    monkeypatch.delenv("GMS_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.cache_root() == tmp_path / "gms-rt"


def test_a_timing_cache_that_nobody_listed_or_that_changed_is_not_used(tmp_path):
    place = tmp_path / timing_cache.TIMING_CACHE
    place.write_bytes(b"times")
    assert timing_cache.timing_cache_from_engine(tmp_path) == b""
    write_manifest(tmp_path, plain_manifest("e", 16, files={}))  # as older builds wrote it
    assert timing_cache.timing_cache_from_engine(tmp_path) == b""
    write_manifest(tmp_path, plain_manifest("e", 16, files={place.name: sha256_bytes(b"times")}))
    assert timing_cache.timing_cache_from_engine(tmp_path) == b"times"
    place.write_bytes(b"timez")
    assert timing_cache.timing_cache_from_engine(tmp_path) == b""


def test_what_was_timed_on_another_board_or_in_another_mode_is_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(existing, "load_tensorrt", lambda *_: types.SimpleNamespace(__version__="1.7"))
    here = "NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN"
    machine = machine_from_files(AGX_ORIN, Gpu(0, "Orin", 87, 1, integrated=True))
    monkeypatch.setattr(existing, "probe", lambda: machine)
    for device, same in ((None, True), (here, True), (here.replace("MAXN", "MODE_30W"), False)):
        plan = Plan("tensorrt", PLAN, sha256_bytes(b"native code"), 11, 87, "1.7", 0.1, device=device)
        files = {"model.onnx": sha256_bytes(b"a graph"), timing_cache.TIMING_CACHE: sha256_bytes(b"times")}
        out = plan_engine(tmp_path / f"e{device}", plans=[plan], targets=["tensorrt"], files=files)
        (out / timing_cache.TIMING_CACHE).write_bytes(b"times")
        remember_plan(out, plan.sha256)
        found = existing.is_complete(read_manifest(out), out, ("tensorrt",), [("tensorrt", 87)])
        assert found == same
        assert timing_cache.timing_cache_from_engine(out, here) == (b"times" if same else b"")


@pytest.mark.slow
@needs_rtx
def test_full_sd_vae_architecture_builds_at_fp16(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from gms_rt.export.fuse import graph_from_gms

    gms = sd_vae_pipeline()
    path = graph_from_gms(gms, tmp_path / "sd.onnx", source={"kind": "random weights"})
    graph = read_graph(path)
    typed = low_precision_graph(graph, "fp16", ())
    assert set(layer_counts(typed)["compute"]["Conv"]) == {"fp16"}
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
