"""Whole or nothing on disk, and a manifest that refuses what it does not know."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gms_rt import artifacts
from gms_rt.artifacts import EngineManifest, Plan
from gms_rt.errors import ArtifactError, UsageError


def manifest(**changes: object) -> EngineManifest:
    plan = Plan("tensorrt-rtx", "a.plan", "0" * 64, 3, 89, "1.7", 0.5)
    base = EngineManifest(
        name="e", precision="fp16", created="2026-01-01T00:00:00Z", gms_rt="0.1.0", height=224, width=224, batch=1,
        model="model.onnx", files={"model.onnx": "1" * 64}, source={"kind": "graph"}, tokenizer={}, targets=["cpu"],
        plans=[plan], census={}, gate=None, execution="f32", rebuild="gms-rt build",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_manifest_survives_a_round_trip(tmp_path: Path) -> None:
    artifacts.write_manifest(tmp_path, manifest())
    assert artifacts.read_manifest(tmp_path) == manifest()


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
    artifacts.write_manifest(tmp_path, manifest())
    path = tmp_path / artifacts.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=words):
        artifacts.read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, "null"])
def test_broken_json_is_an_error_and_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / artifacts.MANIFEST).write_text(text)
    with pytest.raises(ArtifactError):
        artifacts.read_manifest(tmp_path)


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    good = manifest(plans=[], files={"model.onnx": artifacts.sha256_file(tmp_path / "model.onnx")})
    artifacts.verify_files(tmp_path, good)
    (tmp_path / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match=r"hash differs.*rebuild: gms-rt build"):
        artifacts.verify_files(tmp_path, good)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.verify_files(tmp_path, good)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    artifacts.write_bytes(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), artifacts.atomic_path(tmp_path / "a.txt") as part:
        part.write_bytes(b"new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    with artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "x").write_text("old")
    with pytest.raises(RuntimeError), artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "x").write_text("new")
        raise RuntimeError
    with artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "y").write_text("newer")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["engine", "engine/y"]


def test_a_file_in_place_of_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        artifacts.write_bytes(tmp_path / "file" / "out.json", b"{}")


def test_a_kill_never_leaves_a_half_written_file(tmp_path: Path) -> None:
    target = tmp_path / "big.json"
    program = (
        "import sys, pathlib\nfrom gms_rt import artifacts\n"
        "for i in range(10**6): artifacts.write_bytes(pathlib.Path(sys.argv[1]), bytes([i % 251]) * 500_000)\n"
    )
    for pause in (0.05, 0.11, 0.02):
        child = subprocess.Popen([sys.executable, "-c", program, str(target)])
        while not target.exists():
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        data = target.read_bytes()
        assert len(data) == 500_000
        assert len(set(data)) == 1
        target.unlink()


def test_the_newest_engine_comes_first(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        folder = tmp_path / name
        folder.mkdir()
        artifacts.write_manifest(folder, manifest(name=name))
        os.utime(folder / artifacts.MANIFEST, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / ".part-half").mkdir()
    assert [p.name for p in artifacts.newest_engines(tmp_path)] == ["new", "middle", "old"]


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    artifacts.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"is a file.*choose another place"):
        artifacts.check_writable(tmp_path / "file" / "engine")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # the superuser may write anywhere: ask as another user would
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match="Permission denied"):
        artifacts.check_writable(tmp_path / "engine")
