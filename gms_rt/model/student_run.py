"""A student's run folder: `config.toml` with its shape, `student.safetensors`, and `ranges.json` if trained for INT8.

What the teacher needed is not there: no tokenizer, and no teacher either.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gms_rt.artifacts import check_format, read_json, sha256_file, write_bytes, write_json
from gms_rt.config import config_from_values, read_toml
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model.kind import CONFIG, STUDENT_FORMAT, STUDENT_VERSION, STUDENT_WEIGHTS, is_student_run
from gms_rt.model.run import Tables, fill, toml_text, write_weights
from gms_rt.model.student import Student, StudentShape
from gms_rt.model.student_quantisation import quantised_names

RANGES = "ranges.json"
RANGES_FORMAT, RANGES_VERSION = "gms-rt-student-ranges", 1


def save_student(
    folder: Path,
    student: Student,
    tables: Tables | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    ranges: Mapping[str, float] | None = None,
) -> None:
    """Write a student's run folder.

    `tables` are more tables of `config.toml`, such as how it was trained; `weights` stand in for the student's own.
    `ranges` are those of quantisation-aware training: INT8 needs no calibration images then.
    """
    own: Tables = {
        "run": {"format": STUDENT_FORMAT, "version": STUDENT_VERSION},
        "student": student.shape.to_values(),
    }
    (folder / RANGES).unlink(missing_ok=True)  # never beside weights that they are not for
    write_bytes(folder / CONFIG, toml_text({**own, **(tables or {})}).encode())
    write_weights(folder / STUDENT_WEIGHTS, weights or student.state_dict())
    if ranges is not None:
        about = {"format": RANGES_FORMAT, "version": RANGES_VERSION, "weights": sha256_file(folder / STUDENT_WEIGHTS)}
        write_json(folder / RANGES, {**about, "ranges": dict(ranges)})


def ranges_from_run(folder: Path) -> dict[str, float]:
    """The learned ranges of a student's run by convolution; empty where it was not trained for INT8."""
    path = folder / RANGES
    if not path.is_file():
        return {}
    value = read_json(path)
    check_format(value, RANGES_FORMAT, RANGES_VERSION, where=path, fix="train the student again")
    if value.get("weights") != sha256_file(folder / STUDENT_WEIGHTS):
        raise ArtifactError("is for other weights than this run has", where=path, fix="train the student again")
    ranges = value.get("ranges")
    names = quantised_names(Student(shape_from_run(folder)))
    numbers = isinstance(ranges, dict) and all(isinstance(high, float) and high > 0 for high in ranges.values())
    if not isinstance(ranges, dict) or not numbers or set(ranges) != set(names):
        raise ArtifactError("does not fit the student of this run", where=path, fix="train the student again")
    return {name: float(ranges[name]) for name in names}


def load_student(folder: Path) -> Student:
    """The student of a run folder, ready to segment."""
    student = Student(shape_from_run(folder))
    fill(student, folder / STUDENT_WEIGHTS)
    return student.eval()


def shape_from_run(folder: Path) -> StudentShape:
    """The shape of a run folder's student."""
    if not is_student_run(folder):
        raise UsageError("is not a student's run folder", where=folder, fix="name one that gms-rt distill wrote")
    if not (folder / STUDENT_WEIGHTS).is_file():
        raise UsageError(f"is not a run folder (no {STUDENT_WEIGHTS})", where=folder)
    values = read_toml(folder / CONFIG).get("student", {})
    return config_from_values(StudentShape, values, where=folder / CONFIG)
