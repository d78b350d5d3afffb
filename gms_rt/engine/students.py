"""The students that stand next to a run: folders whose `config.toml` says that this very run taught them."""

from __future__ import annotations

from pathlib import Path

from gms_rt.artifacts import sha256_file, sha256_json
from gms_rt.config import read_toml
from gms_rt.errors import GmsError

_FORMAT = "gms-rt-student"
# What makes a run the teacher that it is; a student names their hash.
_TEACHER = ("lmm.safetensors", "tokenizer.json")


def students_of(run: Path) -> list[Path]:
    """Students of a run: its siblings, and folders inside it."""
    here = run.resolve()
    if not all((here / name).is_file() for name in _TEACHER):
        return []
    teacher = sha256_json([sha256_file(here / name) for name in _TEACHER])
    folders = [folder for place in (here.parent, here) for folder in sorted(place.iterdir()) if folder.is_dir()]
    return [folder for folder in folders if folder != here and _teacher(folder) == teacher]


def _teacher(folder: Path) -> str | None:
    """The hash of the run that a student was taught by; None of what is not a student."""
    try:
        told = read_toml(folder / "config.toml") if (folder / "config.toml").is_file() else {}
    except (GmsError, OSError):  # whatever it is, it is not a student of this run
        return None
    kind, teacher = told.get("run"), told.get("teacher")
    if not isinstance(kind, dict) or kind.get("format") != _FORMAT or not isinstance(teacher, dict):
        return None
    value = teacher.get("sha256")
    return value if isinstance(value, str) else None
