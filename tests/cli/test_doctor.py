"""`gms-rt doctor` tells what is there and never fails because something is not."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

import pytest
from support.trees import ROOT

from gms_rt.cli import doctor
from gms_rt.cli.main import run
from gms_rt.errors import NativeError
from gms_rt.runtime import device
from gms_rt.runtime.arithmetic import CpuArithmetic


def test_it_tells_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["machine"]["cpu"]["name"] in text
    assert facts["openvino"] in text
    assert facts["native"]["version"] in text
    assert facts["extras"]["train"]["install"] == "pip install 'gms-rt[train]'"


def test_every_environment_variable_of_the_package_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GMS_RT_CACHE", "/somewhere")
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"GMS_RT_CACHE .*: set to /somewhere", text)
    places = [("*.py", r'"(GMS_?RT_[A-Z]+)"'), ("native/src/*.c", r'gmsrt_environment\("(GMS_?RT_[A-Z]+)"')]
    named = {
        name
        for files, pattern in places
        for file in (ROOT / "gms_rt").rglob(files)
        for name in re.findall(pattern, file.read_text())
    }
    assert {"GMS_RT_OPENVINO", "GMS_RT_TRIAL"} <= named <= set(doctor.ENVIRONMENT)
    assert all(name.startswith("GMS_RT_") for name in doctor.ENVIRONMENT)


def test_the_cache_is_shown_and_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GMS_RT_CACHE", raising=False)
    root = tmp_path / "gms-rt"
    for name, size in {
        "compiled/a.blob": 2**20,
        "kernels/d.kernels": 7,
        "tried/b": 0,
        "timing/c.cache": 10,
        "timing/sub/kept": 1,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(size))
    (tmp_path / "precious").write_text("x")
    (root / "tried" / "link").symlink_to(tmp_path / "precious")
    assert run(["doctor"]) == 0
    assert f"compiled graphs of the CPU: 1 file (1.0 MiB) in {root / 'compiled'}" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["cache"]
    assert run(["doctor", "--clear-cache", "--json"]) == 0
    cleared = json.loads(capsys.readouterr().out)["cleared"]
    assert shown == cleared
    assert [(kind["name"], kind["files"], kind["bytes"]) for kind in cleared] == [
        ("compiled", 1, 2**20), ("kernels", 1, 7), ("tried", 1, 0), ("timing", 1, 10),
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["kept", "link", "precious"]
    assert run(["doctor", "--clear-cache"]) == 0
    assert "deleted 0 files (0.0 MiB) of compiled graphs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "int8", "shown"),
    [
        (CpuArithmetic(True, False), False, "fp32, fp16, no bf16, no int8 (what OpenVINO computes in on this CPU)"),
        (CpuArithmetic(False, True), True, "fp32, no fp16, bf16, int8 (what OpenVINO computes in on this CPU)"),
        (CpuArithmetic(None, None, problem="OpenVINO is not installed"), None, "unknown: OpenVINO is not installed"),
    ],
)
def test_arithmetic_is_what_the_runtime_says_whatever_the_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: CpuArithmetic, int8: bool, shown: str
) -> None:
    monkeypatch.setattr(doctor, "cpu_arithmetic", lambda: known)
    monkeypatch.setattr(doctor, "cpu_runs_int8", lambda: int8)
    assert run(["doctor"]) == 0
    assert f"arithmetic    {shown}\n" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["arithmetic"]
    assert found == {"fp16": known.fp16, "bf16": known.bf16, "int8": int8, "problem": known.problem or None}


def test_absent_things_are_reported_as_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_library() -> ctypes.CDLL:
        raise NativeError("the C library is not there", fix="reinstall gms-rt")

    cpu = device.Cpu("a processor", "riscv64", 1, ())
    nothing = device.Machine(cpu, (), None, "no NVIDIA driver", dict.fromkeys(device.probe().packages))
    monkeypatch.setattr(doctor, "probe", lambda: nothing)
    monkeypatch.setattr(doctor, "tensorrt_version", lambda flavour: None)
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    monkeypatch.setattr("gms_rt.runtime.library.load_library", no_library)
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "no NVIDIA driver" in text
    assert "reinstall gms-rt" in text
    assert text.count("not installed") >= 3
    assert "pip install 'gms-rt[dicom-seg]'" in text
