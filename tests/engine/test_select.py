"""Which engine runs here, and in what words the others are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.jetson_boards import AGX_ORIN, machine_from_files
from support.trees import plain_manifest

from gms_rt.engine import fits, select
from gms_rt.engine import manifest as manifests
from gms_rt.engine.manifest import EngineManifest, Plan
from gms_rt.errors import ArtifactError, DeviceError, UsageError
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.runtime.device import Cpu, Gpu, Machine

CPU = Cpu("a processor", "x86_64", 4, ("avx2",))
ORIN = Machine(CPU, (Gpu(0, "Orin", 87, 2**33),), "12.6", "", {})
TWO = Machine(CPU, (Gpu(0, "A100", 80, 2**35), Gpu(1, "L4", 89, 2**34)), "13.0", "", {})
NONE = Machine(CPU, (), None, "no NVIDIA driver", {})


def manifest(name: str = "e", **changes: object) -> EngineManifest:
    plans = [Plan("tensorrt-rtx", f"sm{sm}.plan", "0" * 64, 1, sm, "1.7", 0.1) for sm in (80, 89)]
    return plain_manifest(name, 224, **{"precision": "fp16", "plans": plans} | changes)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "1.7" if flavour == "tensorrt-rtx" else None)


def test_the_plan_for_this_gpu_fits_and_the_others_say_why_not() -> None:
    found = fits.engine_fits(manifest(), TWO, gpu=1)
    assert [(f.target, f.fits, f.gpu) for f in found] == [
        ("tensorrt-rtx", False, None), ("tensorrt-rtx", True, 1), ("cpu", True, None),
    ]  # fmt: skip
    assert found[0].reason == "built for SM80, this machine has SM89 (L4)"


def test_of_two_gpus_of_one_sm_the_one_that_a_plan_was_timed_on_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "11.4")
    two = Machine(CPU, (Gpu(0, "RTX 3060", 86, 2**33), Gpu(1, "RTX 3090", 86, 2**34)), "13.0", "", {})
    for device, index in (("RTX 3090", 1), ("RTX 3060", 0), ("RTX A6000", 0), (None, 0)):
        plan = Plan("tensorrt", "p", "0" * 64, 1, 86, "11.4", 0.1, device=device)
        assert fits.engine_fits(manifest(plans=[plan]), two)[0].gpu == index


def test_each_reason_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no NVIDIA driver" in fits.engine_fits(manifest(), NONE)[0].reason
    assert "this machine has SM87 (Orin)" in fits.engine_fits(manifest(), ORIN)[0].reason
    assert "there is no GPU 7" in fits.engine_fits(manifest(), TWO, gpu=7)[0].reason
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "1.8")
    assert "built with tensorrt-rtx 1.7, installed is 1.8" in fits.engine_fits(manifest(), TWO)[0].reason
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: None)
    assert "pip install 'gms-rt[tensorrt-rtx]'" in fits.engine_fits(manifest(), TWO)[0].reason
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "1.7")
    monkeypatch.setattr(fits, "driver_problem", lambda flavour, machine: f"{flavour} is for another driver")
    assert "tensorrt-rtx is for another driver" in fits.engine_fits(manifest(), TWO)[0].reason
    gone = CpuArithmetic(None, None, problem="OpenVINO is not installed", installed=False)
    monkeypatch.setattr(fits, "cpu_arithmetic", lambda: gone)
    assert fits.engine_fits(manifest(), NONE)[-1].reason == "needs OpenVINO: pip install openvino"
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: None)
    monkeypatch.setattr(fits, "cpu_arithmetic", lambda: CpuArithmetic(True, False, name="a CPU"))
    reason = fits.engine_fits(manifest(precision="bf16", execution="bf16"), NONE)[-1].reason
    assert reason == "asks for bf16: OpenVINO has no BF16 arithmetic on this CPU (a CPU)"
    monkeypatch.setattr(fits, "cpu_arithmetic", lambda: CpuArithmetic(False, True))
    assert all(fits.engine_fits(manifest(execution=execution), NONE)[-1].fits for execution in ("f32", "f16", "bf16"))
    plan = Plan("tensorrt", "p", "0" * 64, 1, 87, "10.3", 0.1)
    reason = fits.engine_fits(manifest(plans=[plan]), machine_from_files(AGX_ORIN))[0].reason
    assert reason == "needs tensorrt: sudo apt install tensorrt python3-libnvinfer"


def written(root: Path, name: str, age: int, **changes: object) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    manifests.write_manifest(folder, manifest(name=name, **changes))
    os.utime(folder / manifests.MANIFEST, (2_000_000 - age, 2_000_000 - age))
    return folder


def test_the_newest_that_fits_is_taken_and_a_damaged_one_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "probe", lambda: NONE)
    good = written(tmp_path, "good", 3)
    written(tmp_path, "gpu-only", 2, targets=["tensorrt-rtx"])
    (written(tmp_path, "damaged", 1) / manifests.MANIFEST).write_text("{")
    assert select.newest_that_fits(tmp_path) == good
    with pytest.raises(DeviceError, match=r"none of 3 engines.*gms-rt build"):
        select.newest_that_fits(tmp_path, "cuda")
    with pytest.raises(UsageError, match="there is no engine"):
        select.newest_that_fits(tmp_path / "empty")


def test_a_model_that_the_manifest_does_not_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "probe", lambda: NONE)
    folder = written(tmp_path, "unlisted", 1, files={})
    (folder / "model.onnx").write_bytes(b"whatever")
    with pytest.raises(ArtifactError, match=r"engine\.json does not list the graph"):
        select.load(folder)


def test_loading_what_does_not_fit_names_what_is_there_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "probe", lambda: ORIN)
    folder = written(tmp_path, "gpu-only", 1, targets=["tensorrt-rtx"])
    with pytest.raises(DeviceError, match=r"sm80\.plan: built for SM80.*sm89\.plan.*build it here: gms-rt build"):
        select.load(folder)
    with pytest.raises(ArtifactError, match="not an engine folder"):
        select.load(tmp_path / "absent")
