"""A run folder of whatever kind as its model."""

from __future__ import annotations

from pathlib import Path

from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.run import comparator_from_run, load_comparator
from gms_rt.model.gms import Gms
from gms_rt.model.kind import is_comparator_run, is_student_run
from gms_rt.model.run import check_run, load_run
from gms_rt.model.student import Student
from gms_rt.model.student_run import load_student, shape_from_run


def load_any_run(folder: Path) -> Gms | Student | Comparator:
    """The model of a run folder of any kind, ready to segment."""
    if is_comparator_run(folder):
        return load_comparator(folder)
    return load_student(folder) if is_student_run(folder) else load_run(folder)


def check_any_run(folder: Path) -> None:
    """Refuse what is not a run folder, whatever its kind."""
    if is_comparator_run(folder):
        comparator_from_run(folder)
    elif is_student_run(folder):
        shape_from_run(folder)
    else:
        check_run(folder)
