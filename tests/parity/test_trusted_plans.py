"""Certificates of an engine whose plan came from elsewhere are about what ran: the plan only with the user's word."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from support.plan_engines import JUDGED, SIDE, plan_engine, use_fakes

from gms_rt.artifacts import sha256_file
from gms_rt.cli.engine_text import gate_lines
from gms_rt.cli.main import run
from gms_rt.engine.manifest import read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_fakes(monkeypatch)
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    made = plan_engine(tmp_path / "e")
    images = np.full((2, SIDE, SIDE, 3), 40, np.uint8)
    images[:, 4:12, 4:12] = 200
    np.savez(made / "golden.npz", images=images, probabilities=images[..., 0])
    manifest = read_manifest(made)
    manifest.files["golden.npz"] = sha256_file(made / "golden.npz")
    write_manifest(made, manifest)
    return made


def backend(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(["parity", *map(str, arguments), "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["compared"]["backend"])


def test_the_certificate_is_about_what_ran(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backend(capsys, folder) == "cpu"
    assert backend(capsys, folder, "--trust-plans") == "tensorrt-rtx"
    certificate = str(folder / "parity.json")
    assert run(["parity", "verify", certificate]) == 4  # it is about a GPU, and the plan is not loaded
    assert "tensorrt-rtx" in capsys.readouterr().err
    assert run(["parity", "verify", certificate, "--trust-plans"]) == 0


def test_the_certificate_of_a_plan_says_what_was_judged_at_the_build_and_how(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(folder)
    plans = [dataclasses.replace(plan, judged=JUDGED) for plan in manifest.plans]
    write_manifest(folder, dataclasses.replace(manifest, plans=plans))
    assert run(["parity", str(folder), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["compared"]  # the CPU's graph: another one
    assert "judged_at_build" not in compared and "emulated" not in compared["in_words"]
    assert run(["parity", str(folder), "--json", "--trust-plans"]) == 0
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert compared["judged_at_build"] == JUDGED
    words = "; at the build the plan's graph: Dice to FP32 mean 0.9987, minimum 0.9871 on 99 images, emulated on a CPU"
    assert words in compared["in_words"]
    said = gate_lines(read_manifest(folder))[-1]
    assert said.startswith("plan:  Dice to FP32 mean 0.9987, minimum 0.9871 on 99 images, emulated on a CPU")
