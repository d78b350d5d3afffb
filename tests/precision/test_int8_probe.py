"""Whether a CPU computes in INT8 is asked of its runtime, and a build and the demo keep to the answer."""

from __future__ import annotations

import json

import pytest

from gms_rt.cli import demonstration
from gms_rt.cli.main import run
from gms_rt.engine import targets
from gms_rt.engine.manifest import read_manifest
from gms_rt.graph.run import Session
from gms_rt.precision.int8_probe import cpu_runs_int8
from gms_rt.runtime.device import Machine, probe


@pytest.fixture
def asked_anew():
    cpu_runs_int8.cache_clear()
    yield
    cpu_runs_int8.cache_clear()


@pytest.mark.parametrize(
    ("layers", "answer"),
    [
        ({"Convolution": {"u8": 2, "f32": 1}}, True),
        ({"Convolution": {"i8": 1}}, True),
        ({"Convolution": {"f32": 3}}, False),  # as OpenVINO says on Arm
        ({"Convolution": {"f32": 3}, "FakeQuantize": {"u8": 2}}, False),
        ({}, False),
    ],
)
@pytest.mark.usefixtures("asked_anew")
def test_the_answer_is_what_the_convolutions_run_in(monkeypatch, layers, answer):
    monkeypatch.setattr(Session, "executed_layers", lambda self: layers)
    assert cpu_runs_int8() is answer


@pytest.fixture
def without_int8(monkeypatch):
    """This machine, if its CPU's runtime had no INT8 and there were no GPU."""
    monkeypatch.setattr(targets, "cpu_runs_int8", lambda: False)
    monkeypatch.setattr("gms_rt.cli.demonstration.cpu_runs_int8", lambda: False)
    here = Machine(probe().cpu, (), None, "no NVIDIA driver", {})
    for module in ("engine.targets", "cli.demonstration"):
        monkeypatch.setattr(f"gms_rt.{module}.probe", lambda: here)


@pytest.mark.usefixtures("without_int8")
def test_an_int8_build_for_such_a_cpu_is_refused_before_calibration(tmp_path, capsys):
    code = run(["build", "--precision", "int8", "--target", "cpu", "--out", str(tmp_path / "e")])
    assert code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs no convolution in INT8 on this CPU" in line and "--precision fp16" in line
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("flavours", [(), ("tensorrt-rtx",)])
@pytest.mark.usefixtures("without_int8")
def test_the_demo_leaves_int8_out_whichever_tensorrt_is_installed(flavours, monkeypatch):
    monkeypatch.setattr(targets, "tensorrt_installed", lambda flavour: flavour in flavours)
    assert demonstration._precisions()[0] == ("fp16",)


@pytest.mark.slow
@pytest.mark.usefixtures("without_int8")
def test_the_demo_goes_on_without_int8_and_says_so(tmp_path, capsys):
    few = ["--calib-images", "4", "--gate-images", "6"]
    assert run(["demo", "--out", str(tmp_path / "demo"), "--seconds", "0.5", *few, "--json", "--quiet"]) == 0
    gate = read_manifest(tmp_path / "demo/engines/demo-fp16").gate
    assert gate is not None and gate["images"] == 6
    assert "--calib-images 4 --gate-images 6" in (tmp_path / "demo/report.html").read_text()
    value = json.loads(capsys.readouterr().out)
    assert [engine["name"] for engine in value["engines"]] == ["demo-fp16", "demo-edge-fp16"]
    assert "INT8 was left out" in value["left_out"]
    assert value["left_out"] in (tmp_path / "demo/report.html").read_text()
    assert len(list((tmp_path / "demo/segmented/masks").iterdir())) == 14
