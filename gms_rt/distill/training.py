"""A student as what is trained: its batches, its losses and its score, in FP32 as in fake-quantised form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gms_rt.distill.batches import StudentBatch, ViewedBatches
from gms_rt.distill.objective import student_losses
from gms_rt.distill.pictures import Pictures
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.distill.teacher import TeacherFacts
from gms_rt.distill.teacher_cache import Lessons
from gms_rt.model.student import Student, Taught
from gms_rt.train.pixel_validation import PixelValidation
from gms_rt.train.schedule import Place, Schedule


@dataclass(frozen=True)
class Material:
    """What trains and judges a student: decoded once, for as many students as are trained on it."""

    train: Pictures
    held_out: Pictures
    lessons: Lessons | None  # of the pictures that train; None without a teacher
    teacher: TeacherFacts | None


class StudentTraining:
    """The part of a trainee that does not depend on how its weights are kept."""

    columns = ("loss", "truth_loss", "teacher_loss", "latent_loss")
    repeatable = False  # BatchNorm counts its batches

    def __init__(self, student: Student, recipe: DistillRecipe, material: Material, device: torch.device) -> None:
        self.network, self.recipe, self.material, self.device = student, recipe, material, device
        self.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        held_out = material.held_out
        self.validation = PixelValidation(student, held_out.images, held_out.masks, device)
        self.schedule = Schedule(recipe.steps(), len(material.train))

    def batches(self) -> ViewedBatches:
        """Where the steps take their batches from."""
        return ViewedBatches(self.material.train, self.material.lessons, self.recipe, self.schedule, self.device)

    def inputs(self, batch: StudentBatch, place: Place) -> tuple[StudentBatch, Place]:
        """The batch as it is, and where the step stands."""
        return batch, place

    def losses(self, batch: StudentBatch, place: Place) -> tuple[Tensor, ...]:
        """The total; of it, before their weights, the ground truth's part, the teacher's masks' and its latents'."""
        if self.network.latent is not None and self.recipe.latent_weight:
            said = self.network.taught(batch.image)
        else:
            said = Taught(self.network(batch.image), None, ())
        found = student_losses(self.recipe, self.recipe.teaching(place.epoch, place.spent), batch, said)
        return found.total, found.truth, found.teacher, found.latent

    def score(self, weights: dict[str, Tensor]) -> tuple[float, float] | None:
        """Mean Dice and loss of the validation cases."""
        return self.validation.score(weights) if self.validation else None
