"""A student's run folder: `config.toml` with its shape, and `student.safetensors`.

What the teacher needed is not there: no tokenizer, and no teacher either.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gms_rt.artifacts import write_bytes
from gms_rt.config import config_from_values, read_toml
from gms_rt.errors import UsageError
from gms_rt.model.gms import Gms
from gms_rt.model.kind import CONFIG, STUDENT_FORMAT, STUDENT_VERSION, STUDENT_WEIGHTS, is_student_run
from gms_rt.model.run import Tables, check_run, fill, load_run, toml_text, write_weights
from gms_rt.model.student import Student, StudentShape


def save_student(
    folder: Path, student: Student, tables: Tables | None = None, *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a student's run folder.

    `tables` are more tables of `config.toml`, such as how it was trained; `weights` stand in for the student's own.
    """
    own: Tables = {
        "run": {"format": STUDENT_FORMAT, "version": STUDENT_VERSION},
        "student": student.shape.to_values(),
    }
    write_bytes(folder / CONFIG, toml_text({**own, **(tables or {})}).encode())
    write_weights(folder / STUDENT_WEIGHTS, weights or student.state_dict())


def load_any_run(folder: Path) -> Gms | Student:
    """The model of a run folder of either kind, ready to segment."""
    return load_student(folder) if is_student_run(folder) else load_run(folder)


def check_any_run(folder: Path) -> None:
    """Refuse what is not a run folder, whatever its kind."""
    if is_student_run(folder):
        shape_from_run(folder)
    else:
        check_run(folder)


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
