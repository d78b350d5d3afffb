"""What kind of run a folder is: a latent mapping model between a tokenizer's halves, a student, or a comparator.

Needs no torch. Runs of the last two kinds say so in `config.toml` and have weights of other names, so that a gms-rt
from before there were such runs refuses them as "not a run folder (no lmm.safetensors)".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gms_rt.artifacts import check_format, read_json, sha256_file, sha256_json
from gms_rt.config import read_toml
from gms_rt.errors import ArtifactError

CONFIG = "config.toml"
LMM_WEIGHTS, STUDENT_WEIGHTS = "lmm.safetensors", "student.safetensors"
COMPARATOR_WEIGHTS = "comparator.safetensors"
STUDENT_FORMAT, STUDENT_VERSION = "gms-rt-student", 1
COMPARATOR_FORMAT, COMPARATOR_VERSION = "gms-rt-comparator", 1


def is_student_run(run: Path) -> bool:
    """Whether a folder is a student's run, of a version that this program reads."""
    told = _told(run)
    if told is None or told.get("format") == COMPARATOR_FORMAT:
        return False
    check_format(told, STUDENT_FORMAT, STUDENT_VERSION, where=run / CONFIG, fix="train the student again")
    return True


def is_comparator_run(run: Path) -> bool:
    """Whether a folder is the run of a comparator, of a version that this program reads."""
    told = _told(run)
    if told is None or told.get("format") != COMPARATOR_FORMAT:
        return False
    check_format(told, COMPARATOR_FORMAT, COMPARATOR_VERSION, where=run / CONFIG, fix="train the model again")
    return True


def weights_file(run: Path) -> Path:
    """Where a run keeps what was trained."""
    if is_comparator_run(run):
        return run / COMPARATOR_WEIGHTS
    return run / (STUDENT_WEIGHTS if is_student_run(run) else LMM_WEIGHTS)


def teacher_sha256(run: Path) -> str:
    """What a student calls the run that taught it: one hash of its weights and its tokenizer, wherever that lies."""
    # The hash of the tokenizer's own weights is in its file.
    return sha256_json([sha256_file(run / LMM_WEIGHTS), tokenizer_values(run)])


def tokenizer_values(run: Path) -> dict[str, Any]:
    """What a run's tokenizer is, without the place that it came from."""
    told = read_json(run / "tokenizer.json")
    return {key: value for key, value in told.items() if key not in ("source", "revision")}


def _told(run: Path) -> dict[str, Any] | None:
    """What a run says of its kind; nothing where it is a latent mapping model's, or no run."""
    path = run / CONFIG
    if not path.is_file():
        return None
    told = read_toml(path).get("run")
    if told is not None and not isinstance(told, dict):
        raise ArtifactError("'run' is not a table", where=path)
    return told
