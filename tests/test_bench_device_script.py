"""`benchmarks/gpu/run` on a machine without a GPU: the whole way on the processor, and its decisions for others."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from bench_runner import fused_graph, golden_images, native_missing

from gms_rt.errors import GmsError
from gms_rt.runtime.device import Cpu, Gpu, Machine

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu" / "run"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("device_script", str(SCRIPT))
    specification = importlib.util.spec_from_loader("device_script", loader)
    module = importlib.util.module_from_spec(specification)
    sys.modules["device_script"] = module
    # No compiled copy beside a file without an ending.
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


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


def test_the_device_is_the_first_gpu_unless_asked(script):
    assert script.device_of(_machine(A100), None) == "cuda:0"
    assert script.device_of(_machine(), None) == "cpu"
    assert script.device_of(_machine(A100), "cpu") == "cpu"


def test_builders_follow_what_is_installed(script, monkeypatch):
    installed = {"tensorrt-rtx"}
    monkeypatch.setattr("gms_rt.build.tensorrt.available", lambda flavour: flavour in installed)
    assert script.targets_for(_machine(A100), "cuda:0", "fp16") == ["tensorrt-rtx"]
    assert script.targets_for(_machine(A100), "cpu", "fp16") == ["cpu"]
    installed.clear()
    with pytest.raises(GmsError, match="no TensorRT for NVIDIA A100"):
        script.targets_for(_machine(A100), "cuda:0", "fp16")


def test_absent_peers_say_why(script, monkeypatch):
    chosen, absent = script.peers_for(None, "cpu")
    assert not set(chosen) & {"torch-eager", "torch-compile"}
    assert any("--run" in line for line in absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen, absent = script.peers_for(Path("runs/x"), "cpu")
    assert chosen == []
    assert len(absent) == 2


def test_the_diary_keeps_failures_and_goes_on(script):
    lines: list[str] = []
    diary = script.Diary(lines.append)

    def broken():
        raise RuntimeError("driver said no\nand more")

    assert diary.attempt("a", lambda: 5) == 5
    assert diary.attempt("b", broken) is None
    assert diary.worked == ["a"]
    assert diary.failed == ["b: RuntimeError: driver said no"]
