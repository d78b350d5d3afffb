"""`gms-rt doctor` tells what is there and never fails because something is not."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

import pytest
from support.jetson_boards import AGX_ORIN, machine_from_files
from support.trees import ROOT

from gms_rt.cli import doctor
from gms_rt.cli.main import run
from gms_rt.errors import NativeError
from gms_rt.runtime import device, tensorrt_module
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.runtime.tensorrt_module import how_to_install


def test_it_tells_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["machine"]["cpu"]["name"] in text
    assert facts["openvino"] in text
    assert facts["native"]["version"] in text
    assert facts["extras"]["train"]["install"] == "pip install 'gms-rt[train]'"
    assert [name for name, extra in facts["extras"].items() if not extra["adds"]] == []


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
        ("compiled", 1, 2**20), ("kernels", 1, 7), ("tried", 1, 0), ("timing", 1, 10), ("web", 0, 0),
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


def doctor_on(board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What doctor prints on a board, in an environment where pip knows of no TensorRT."""
    machine = machine_from_files(board)
    monkeypatch.setattr(doctor, "probe", lambda: machine)
    monkeypatch.setattr(doctor, "tensorrt_version", lambda flavour: None)
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    assert run(["doctor"]) == 0
    return capsys.readouterr().out


def test_on_a_jetson_tensorrt_comes_from_apt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = doctor_on(AGX_ORIN, monkeypatch, capsys)
    assert "board         NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN\n" in text
    assert "JetPack       JetPack 6.2 (Jetson Linux 36.4.3)\n" in text
    assert "processor     Cortex-A78AE" in text
    assert re.search(r"tensorrt +TensorRT engines .*: sudo apt install tensorrt python3-libnvinfer\n", text)
    assert "gms-rt[tensorrt]" not in text
    assert "pip install 'gms-rt[dicom-seg]'" in text


def test_a_tensorrt_that_this_environment_does_not_see_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = tmp_path / "usr/lib/python3.10/dist-packages/tensorrt"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    advice = how_to_install("tensorrt", machine_from_files(AGX_ORIN), root=tmp_path)
    assert advice.startswith("python3.10 -m venv --system-site-packages")
    assert str(module.parent) in advice
    monkeypatch.setattr(doctor, "how_to_install", lambda name, machine: advice)
    assert advice in doctor_on(AGX_ORIN, monkeypatch, capsys)


def test_it_says_which_tensorrt_fits_the_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(driver: str, **packages: str) -> tuple[str, dict[str, dict[str, str | None]]]:
        known = {name.replace("_", "-"): version for name, version in packages.items()}
        monkeypatch.setattr(tensorrt_module, "package_version", known.get)
        gpu = device.Gpu(0, "L4", 89, 2**34)
        machine = device.Machine(device.probe().cpu, (gpu,), driver, "", dict(device.probe().packages))
        monkeypatch.setattr(doctor, "probe", lambda: machine)
        assert run(["doctor"]) == 0
        text = capsys.readouterr().out
        assert run(["doctor", "--json"]) == 0
        return text, json.loads(capsys.readouterr().out)["tensorrt_fits"]

    text, fits = shown("12.4", tensorrt_rtx_cu13_libs="1.7")
    assert "tensorrt      not installed; for this driver: tensorrt-cu12\n" in text
    assert "tensorrt-rtx  1.7, does not run with this driver: tensorrt-rtx-cu13 needs NVIDIA's driver r580" in text
    assert fits["tensorrt"] == {"extra": "tensorrt-cu12", "problem": None}
    assert fits["tensorrt-rtx"]["extra"] == "tensorrt-rtx-cu12" and "r580" in str(fits["tensorrt-rtx"]["problem"])
    text, fits = shown("13.0", tensorrt_rtx_cu13_libs="1.7")
    assert "tensorrt-rtx  1.7\n" in text and fits["tensorrt-rtx"] == {"extra": "tensorrt-rtx", "problem": None}
    text, fits = shown("11.4")
    assert "tensorrt      not installed\n" in text and fits["tensorrt"] == {"extra": None, "problem": None}


def test_a_tensorrt_without_package_metadata_counts_as_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JetPack brings it: a module that pip does not list."""
    machine = machine_from_files(AGX_ORIN)
    monkeypatch.setattr(doctor, "probe", lambda: machine)
    monkeypatch.setattr(doctor, "tensorrt_version", lambda flavour: "unknown" if flavour == "tensorrt" else None)
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["tensorrt>=10.3; extra == 'tensorrt'"])
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    assert run(["doctor"]) == 0
    assert re.search(r"tensorrt +TensorRT engines .*: installed\n", capsys.readouterr().out)
