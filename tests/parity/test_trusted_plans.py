"""Certificates of an engine whose plan came from elsewhere are about what ran: the plan only with the user's word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.plan_engines import SIDE, plan_engine, use_fakes

from gms_rt.artifacts import sha256_file
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
