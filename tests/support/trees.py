"""The tree as it stands, and a plain engine manifest: what several tests start from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from gms_rt.engine.manifest import EngineManifest

ROOT = Path(__file__).resolve().parents[2]


def copy_tree(folder: Path) -> Path:
    """Copy what a commit of everything would hold: tracked and new files, changes included, nothing ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)
    return folder


def plain_manifest(name: str, side: int, **changes: Any) -> EngineManifest:
    """A manifest of a processor engine with nothing special about it."""
    fields: dict[str, Any] = {
        "name": name,
        "precision": "fp32",
        "created": "2026-01-01T00:00:00+00:00",
        "gms_rt": "0.1.0",
        "height": side,
        "width": side,
        "batch": 1,
        "model": "model.onnx",
        "files": {},
        "source": {},
        "tokenizer": {},
        "targets": ["cpu"],
        "plans": [],
        "census": {},
        "gate": None,
        "execution": "f32",
        "rebuild": "gms-rt build",
    }
    return EngineManifest(**{**fields, **changes})
