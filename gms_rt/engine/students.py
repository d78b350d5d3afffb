"""The students that stand next to a run: folders whose `config.toml` says that this very run taught them."""

from __future__ import annotations

from pathlib import Path

from gms_rt.config import read_toml
from gms_rt.errors import GmsError
from gms_rt.model.kind import CONFIG, is_student_run, teacher_sha256


def students_of(run: Path) -> list[Path]:
    """Students of a run: its siblings, those inside one of them (a sweep's), and those inside the run."""
    here = run.resolve()
    try:
        teacher = teacher_sha256(here)
    except (GmsError, OSError):  # not a run that can teach: a student, say
        return []
    siblings = _folders(here.parent)
    found = [*siblings, *(inner for place in siblings for inner in _folders(place))]
    return [folder for folder in found if folder != here and teacher in _teachers(folder)]


def _folders(place: Path) -> list[Path]:
    try:
        return [folder for folder in sorted(place.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    except OSError:  # what this user may not look into
        return []


def _teachers(folder: Path) -> list[str]:
    """The hashes of the runs that a student was taught by; none of what is not a student."""
    try:
        told = read_toml(folder / CONFIG).get("teacher") if is_student_run(folder) else None
    except (GmsError, OSError):  # whatever it is, it is not a student of this run
        return []
    if not isinstance(told, dict):
        return []
    each = told.get("each")
    return [
        value for value in (told.get("sha256"), *(each if isinstance(each, list) else ())) if isinstance(value, str)
    ]
