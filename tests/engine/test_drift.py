"""An engine on another device or runtime than it was certified on shows its masks first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from support.jetson_boards import AGX_ORIN, ORIN_NANO, machine_from_files
from support.plan_engines import CPU, SIDE, FakeRunner, use_fakes
from support.trees import plain_manifest

from gms_rt.artifacts import sha256_file
from gms_rt.engine import drift, select
from gms_rt.engine.manifest import read_manifest, write_manifest
from gms_rt.errors import GateError
from gms_rt.parity import certificate
from gms_rt.parity.certificate import certify, read_certificate
from gms_rt.runtime.device import Machine

COUNT = 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that was certified on "runtime 1"."""
    use_fakes(monkeypatch, Machine(CPU, (), None, "no NVIDIA driver", {}))
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    made = tmp_path / "e"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"a graph")
    images = np.full((COUNT, SIDE, SIDE, 3), 40, np.uint8)
    images[:, 4:12, 4:12] = 200
    np.savez(made / "golden.npz", images=images, probabilities=images[..., 0])
    files = {name: sha256_file(made / name) for name in ("model.onnx", "golden.npz")}
    write_manifest(made, plain_manifest("e", SIDE, files=files))
    assert certify(made)["verdict"] == "pass"
    return made


def images_run(folder: Path, **options: object) -> int:
    """How many images the engine has run when `load` hands it over."""
    with select.load(folder, **options):  # type: ignore[arg-type]
        return FakeRunner.opened[-1].inferred


def test_the_certificate_says_on_what_it_was_made(folder: Path) -> None:
    compared = read_certificate(folder / "parity.json")["compared"]
    assert (compared["backend"], compared["device"], compared["runtime"]) == ("cpu", "a cpu device", "runtime 1")


def test_certifying_is_the_check_and_runs_the_pictures_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FakeRunner.opened[-1].inferred == COUNT
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 2")
    certify(folder, write=False)
    assert FakeRunner.opened[-1].inferred == COUNT


def test_on_the_certified_stack_nothing_runs(folder: Path) -> None:
    assert images_run(folder) == 0


def test_another_runtime_is_looked_at_once_and_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 2")
    assert images_run(folder) == COUNT
    assert images_run(folder) == 0
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 3")
    assert images_run(folder, trust_device=True) == 0
    assert images_run(folder) == COUNT


def test_another_arithmetic_is_looked_at_once_and_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRunner, "execution", "f16")
    assert images_run(folder) == COUNT
    assert images_run(folder) == 0


def test_an_f16_engine_on_a_cpu_without_it_says_that_it_runs_in_f32(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, precision="fp16", execution="f16"))
    with select.load(folder) as engine:
        assert (
            engine.notice == f"{folder}: was built to run in f16, which OpenVINO does not have on a cpu device: "
            "it runs in f32"
        )
    assert caplog.messages == [engine.notice]
    write_manifest(folder, dataclasses.replace(manifest, precision="fp16"))
    with select.load(folder) as engine:
        assert engine.notice == ""


def test_another_board_or_power_mode_is_another_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine_from_files(AGX_ORIN)
    monkeypatch.setattr(drift, "probe", lambda: here)
    monkeypatch.setattr(certificate, "probe", lambda: here)
    assert images_run(folder) == 0  # the certificate names no board, so none can differ
    compared = certify(folder)["compared"]
    assert compared["board"] == "NVIDIA Jetson AGX Orin Developer Kit (p3701-0005)"
    assert compared["power_mode"] == "MAXN"
    assert "on a cpu device, NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN (" in compared["in_words"]
    assert images_run(folder) == 0
    assert here.board is not None
    slower = dataclasses.replace(here, board=dataclasses.replace(here.board, power_mode="MODE_15W"))
    monkeypatch.setattr(drift, "probe", lambda: slower)
    assert images_run(folder) == COUNT
    assert images_run(folder) == 0
    monkeypatch.setattr(drift, "probe", lambda: machine_from_files(ORIN_NANO))
    monkeypatch.setattr(FakeRunner, "gain", 0.1)
    with pytest.raises(GateError, match=r"certified on NVIDIA Jetson AGX Orin .*, MAXN, this is .*Orin Nano .*, 25W"):
        select.load(folder)


def test_masks_that_changed_are_an_error_that_names_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 2")
    monkeypatch.setattr(FakeRunner, "gain", 0.1)
    for _ in range(2):  # a failure is not remembered as a pass
        with pytest.raises(
            GateError, match=r"certified on runtime 1, this is runtime 2.*Dice.*--trust-device"
        ) as found:
            select.load(folder)
        assert found.value.exit_code == 3
        with pytest.raises(Exception, match="closed"):
            FakeRunner.opened[-1].infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert images_run(folder, trust_device=True) == 0


def certificate_with(folder: Path, **changes: object) -> None:
    path = folder / "parity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "case", ["none", "damaged", "failed", "no gate", "older", "another build", "another reference"]
)
def test_without_a_passing_certificate_of_this_engine_nothing_happens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 2")
    monkeypatch.setattr(FakeRunner, "gain", 0.1)
    if case == "none":
        (folder / "parity.json").unlink()
    elif case == "damaged":
        (folder / "parity.json").write_text("{")
    elif case == "failed":
        certificate_with(folder, verdict="fail")
    elif case == "no gate":
        certificate_with(folder, gate={"mean": "high"})
    elif case == "older":  # it names the device and no runtime
        certificate_with(folder, compared={"backend": "cpu", "device": "a cpu device"})
    elif case == "another build":
        (folder / "engine.json").write_text((folder / "engine.json").read_text() + "\n")
    else:
        certificate_with(folder, reference={"sha256": "0" * 64})
    assert images_run(folder) == 0


def test_an_older_certificate_still_names_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRunner, "gain", 0.1)
    certificate_with(folder, compared={"backend": "cpu", "device": "another processor"})
    with pytest.raises(GateError, match="certified on another processor, this is a cpu device"):
        select.load(folder)
