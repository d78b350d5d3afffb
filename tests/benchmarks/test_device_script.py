"""`benchmarks/gpu/run` on a machine without a GPU: the whole way on the processor, and its decisions for others."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bench_runner import fused_graph, golden_images, native_missing
from support.trees import ROOT

from gms_rt.errors import GmsError
from gms_rt.precision.images import ImageSet
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.device import Cpu, Gpu, Machine

SCRIPT = ROOT / "benchmarks" / "gpu" / "run"


def _loaded(path: Path, name: str):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    specification = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    # No compiled copy beside a file without an ending.
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    return _loaded(SCRIPT, "device_script")


@pytest.fixture(scope="module")
def shared(script):
    """What both scripts share."""
    return sys.modules["device_bench"]


def _machine(*gpus: Gpu) -> Machine:
    return Machine(Cpu("a processor", "x86_64", 8, ()), gpus, "13.0" if gpus else None, "" if gpus else "none", {})


A100 = Gpu(0, "NVIDIA A100", 80, 40 << 30)


def _graph(folder: Path) -> Path:
    from onnx.reference import ReferenceEvaluator

    graph = fused_graph(folder / "small.onnx", side=64)
    images, truth = golden_images(6, side=64)
    evaluator = ReferenceEvaluator(str(graph))
    maps = np.concatenate([evaluator.run(None, {"image": image[None]})[0][..., 0] for image in images])
    names = np.array([str(i) for i in range(len(images))])
    np.savez(folder / "small.golden.npz", images=images, probabilities=maps, truth=truth, names=names)
    return graph


@pytest.mark.slow
@pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")
def test_the_whole_way_on_the_processor(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = _graph(tmp_path)
    arguments = ["--graph", str(graph), "--device", "cpu", "--precisions", "fp16", "bf16", "--seconds", "0.3"]
    assert script.main([*arguments, "--rounds", "2", "--out", str(tmp_path / "out")]) == 0
    value = json.loads((tmp_path / "out/report.json").read_text())
    engines = [m["name"] for m in value["bench"]["measured"] if m["kind"] == "engine"]
    assert "small-fp16-cpu" in engines
    assert all(p["verdict"] == "pass" for p in value["parity"])
    notes = "\n".join(value["notes"])
    assert "Worked: build small-fp16-cpu" in notes
    assert "Did not work: PyTorch peers: name the trained run" in notes
    # Where the processor has no bf16, the reason is in the report and the rest went on.
    assert "small-bf16-cpu" in engines or "Did not work: build small-bf16-cpu" in notes
    assert (tmp_path / "out/report.html").is_file()


def test_nothing_measured_is_a_failure_with_reasons(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = _graph(tmp_path)
    assert script.main(["--graph", str(graph), "--device", "cuda:0", "--precisions", "fp16"]) == 1
    assert "nothing could be measured" in capsys.readouterr().out
    assert not (tmp_path / "benchmarks").exists()


def test_the_device_is_the_first_gpu_unless_asked(shared):
    assert shared.device_of(_machine(A100), None) == "cuda:0"
    assert shared.device_of(_machine(), None) == "cpu"
    assert shared.device_of(_machine(A100), "cpu") == "cpu"
    assert shared.device_of(_machine(A100), "cuda") == "cuda:0"


def test_builders_follow_what_is_installed(script, shared, monkeypatch):
    installed = {"tensorrt-rtx", "tensorrt"}
    monkeypatch.setattr(shared, "tensorrt_installed", lambda flavour: flavour in installed)
    assert shared.targets_for(_machine(A100), "cuda:0") == ["tensorrt", "tensorrt-rtx"]
    assert shared.targets_for(_machine(A100), "cpu") == ["cpu"]
    with pytest.raises(GmsError, match="no cuda:3"):
        shared.targets_for(_machine(A100), "cuda:3")
    installed.clear()
    with pytest.raises(GmsError, match="no TensorRT for NVIDIA A100"):
        shared.targets_for(_machine(A100), "cuda:0")


def test_a_second_gpu_gets_engines_for_its_own_architecture(shared, tmp_path, monkeypatch):
    asked = []

    def build(request, progress):
        asked.append((request.targets, request.sms))
        raise GmsError("this SM is refused")

    monkeypatch.setattr(shared, "tensorrt_installed", lambda flavour: flavour == "tensorrt-rtx")
    monkeypatch.setattr(shared, "build_engine", build)
    machine = _machine(A100, dataclasses.replace(A100, index=1, name="RTX 4090", sm=89))
    diary = shared.Diary(lambda _: None)
    images = ImageSet(golden_images(1)[0], "discs")
    subject = shared.Subject(tmp_path / "g.onnx", None, images, images)
    settings = shared.Settings("cuda:1", ("fp16", "int8"), tmp_path, (), 1.0, 1, "t")
    assert shared.build_all(subject, settings, machine, diary) == []
    assert asked == [(("tensorrt-rtx",), (89,))] * 2
    assert len([line for line in diary.failed if "refused" in line]) == 2


PEERS = ("torch-eager", "torch-compile", "onnxruntime")


def test_absent_peers_say_why(shared, tmp_path, monkeypatch):
    chosen, absent = shared.peers_for(None, "cpu", PEERS)
    assert not set(chosen) & {"torch-eager", "torch-compile"}
    assert any("--run" in line for line in absent)
    monkeypatch.setattr(shared.shutil, "which", lambda _: None)
    chosen, absent = shared.peers_for(tmp_path, "cpu", PEERS)
    assert "torch-compile" not in chosen
    assert any("no C compiler" in line for line in absent)
    # A CPU build of PyTorch or ONNX Runtime on a machine with a GPU is not timed as if it were the GPU's.
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        chosen, absent = shared.peers_for(tmp_path, "cuda:0", PEERS)
        assert chosen == []
        assert any("PyTorch" in line and "CUDA" in line for line in absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen, absent = shared.peers_for(Path("runs/x"), "cpu", PEERS)
    assert chosen == []
    assert len(absent) == 2


def test_a_wrong_graph_is_one_line(script, tmp_path, capsys):
    (tmp_path / "g.onnx").write_bytes(b"nothing")
    assert script.main(["--graph", str(tmp_path / "g.onnx"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "g.onnx" in error
    assert len(error.splitlines()) == 1


CPU_SCRIPT = SCRIPT.parents[1] / "cpu" / "run"


@pytest.fixture(scope="module")
def cpu_script():
    """The processor's script as a module."""
    return _loaded(CPU_SCRIPT, "cpu_script")


@pytest.mark.slow
@pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")
def test_the_processors_script_writes_results_that_speak_for_themselves(cpu_script, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")

    def model(work, diary):
        calibration, gate = (ImageSet(golden_images(8, side=64)[0][i::2], "discs") for i in (0, 1))
        return cpu_script.Subject(_graph(work), None, calibration, gate, note="a small model")

    monkeypatch.setattr(cpu_script, "MODELS", {"demo": model, "sdvae": model})
    order = [
        "--precisions",
        "fp32",
        "bf16",
        "--peers",
        "onnxruntime",
        "--seconds",
        "0.3",
        "--rounds",
        "3",
        "--no-sweep",
    ]
    out = tmp_path / "out"
    assert cpu_script.main([*order, "--only", "demo", "sdvae", "--out", str(out), "--work", str(tmp_path / "w")]) == 0
    found = json.loads((out / "demo.json").read_text())
    notes = "\n".join(found["notes"])
    assert "small-fp32-cpu takes" in notes
    assert "of onnxruntime's time" in notes
    assert "a small model" in notes
    if not cpu_arithmetic().bf16:
        assert [m["name"] for m in found["bench"]["measured"]] == ["small-fp32-cpu", "onnxruntime"]
        assert "no BF16 arithmetic on this CPU" in notes
    assert found["parity"][0]["verdict"] == "pass"
    # Where the weights are random the figure is shown and no pass is claimed, in no rendering.
    random = json.loads((out / "sdvae.json").read_text())
    assert {p["verdict"] for p in random["parity"]} == {"none"}
    assert random["parity"][0]["mean"] > 0
    assert "masks mean nothing" in (out / "sdvae.md").read_text()
    assert not re.search(r"\bpass\b \(", (out / "sdvae.md").read_text())


def test_the_official_model_needs_its_data(cpu_script, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GMS_RT_DATA", raising=False)
    assert cpu_script.main(["--only", "ham10000", "--work", str(tmp_path)]) == 1
    assert "GMS_RT_DATA is not set" in capsys.readouterr().out


def test_the_diary_keeps_failures_and_goes_on(script):
    lines: list[str] = []
    diary = script.Diary(lines.append)

    def broken():
        raise RuntimeError("driver said no\nand more")

    assert diary.attempt("a", lambda: 5) == 5
    assert diary.attempt("b", broken) is None
    assert diary.worked == ["a"]
    assert diary.failed == ["b: RuntimeError: driver said no"]


def test_results_name_no_place_of_the_machine(cpu_script, tmp_path, monkeypatch):
    monkeypatch.setenv("GMS_RT_DATA", str(tmp_path))
    written = f"gms-rt build {SCRIPT.parents[2]}/gms_rt/x.onnx --calib {tmp_path.resolve()}/busi"
    written += " --out /elsewhere/demo/engines/x"
    told = "gms-rt build gms_rt/x.onnx --calib $GMS_RT_DATA/busi --out demo/engines/x"
    assert cpu_script.without_places(written, Path("/elsewhere")) == told
    assert cpu_script.without_places("build/cpu-bench/demo", Path("build/cpu-bench")) == "build/cpu-bench/demo"
