"""What a distilling is asked for, and what it reached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.classes import SegmentClass
from gms_rt.data.layouts import Dataset
from gms_rt.data.splits import Split
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.model.student import StudentShape
from gms_rt.train.request import Outcome


@dataclass(frozen=True)
class DistillRequest:
    """One student: the teacher, the data, how to train, and where to write."""

    teacher: Path  # a run; read only where the recipe gives it a say
    dataset: Dataset
    split: Split  # its test cases are never read
    shape: StudentShape  # without the head for the teacher's latent, which is added where it is wanted
    recipe: DistillRecipe
    out: Path  # the student's run folder
    unlabelled: tuple[Path, ...] = ()  # pictures without masks, which the teacher alone teaches
    device: str = "cpu"  # a name for torch, see `torch_device`
    init: Path | None = None  # a student's run whose weights are the first ones; None starts from random weights
    resume: bool = False  # go on with the training that was stopped in `out`; else a run there is refused
    cache: Path | None = None  # folder of what the teacher said; None takes `out`/teacher
    also: tuple[Path, ...] = ()  # further runs that teach with the teacher: the average of all is what is said
    classes: tuple[SegmentClass, ...] = ()  # what the masks show, kept in the run; empty takes the teacher's


@dataclass(frozen=True)
class Distilled:
    """What a distilling reached."""

    outcome: Outcome
    gflop: float  # of one picture
    taught: bool  # whether the teacher had a say
    pictures: int  # that trained it
    without_mask: int  # of these, as they were given
    mixed: int  # of these, made of those with a mask
    int8_dice: float | None = None  # on validation, as INT8 computes; None without that phase, -1 without such cases
