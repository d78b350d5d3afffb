"""A manifest that refuses what it does not know."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.trees import plain_manifest

from gms_rt.artifacts import sha256_file
from gms_rt.engine.manifest import (
    MANIFEST,
    EngineManifest,
    Plan,
    newest_engines,
    read_manifest,
    verify_files,
    write_manifest,
)
from gms_rt.errors import ArtifactError


def manifest(name: str = "e", **changes: object) -> EngineManifest:
    plan = Plan("tensorrt-rtx", "a.plan", "0" * 64, 3, 89, "1.7", 0.5)
    return plain_manifest(name, 224, **{"plans": [plan], "files": {"model.onnx": "1" * 64}} | changes)


def test_a_manifest_survives_a_round_trip(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "zip"}, "not a gms-rt-engine"),
        ({"surprise": 1}, "unknown keys"),
        ({"height": 0}, "impossible sizes"),
        ({"height": "224"}, "impossible sizes"),
        ({"model": "../../etc/passwd"}, "outside its folder"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"plans": [{"file": "x"}]}, "missing or unknown keys"),
    ],
)
def test_foreign_manifests_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=words):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, "null"])
def test_broken_json_is_an_error_and_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path)


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    good = manifest(plans=[], files={"model.onnx": sha256_file(tmp_path / "model.onnx")})
    verify_files(tmp_path, good)
    (tmp_path / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match=r"hash differs.*rebuild: gms-rt build"):
        verify_files(tmp_path, good)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        verify_files(tmp_path, good)


def test_an_engine_that_was_being_replaced_when_the_process_was_killed_is_found(tmp_path: Path) -> None:
    aside = tmp_path / ".old-e-abc" / "e"
    aside.mkdir(parents=True)
    write_manifest(aside, manifest())
    assert read_manifest(tmp_path / "e") == manifest()
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_the_newest_engine_comes_first(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        folder = tmp_path / name
        folder.mkdir()
        write_manifest(folder, manifest(name=name))
        os.utime(folder / MANIFEST, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / ".part-half").mkdir()
    assert [p.name for p in newest_engines(tmp_path)] == ["new", "middle", "old"]
