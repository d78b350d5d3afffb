"""What a student's step minimises: cross entropy and Dice to the ground truth, the same to the teacher's soft masks,
and the distance to its mask latents.

Pictures without a mask have no part in the first; views that were moved have none in the last, because a latent cannot
be turned as a picture can.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gms_rt.distill.batches import StudentBatch
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.model.mask_loss import mask_loss
from gms_rt.model.student import Taught


@dataclass(frozen=True)
class StudentLosses:
    """The sum to minimise, and its parts."""

    total: Tensor
    truth: Tensor
    teacher: Tensor
    latent: Tensor


def student_losses(recipe: DistillRecipe, teaching: float, batch: StudentBatch, said: Taught) -> StudentLosses:
    """The losses of a batch; `teaching` is the weight of what the teacher says."""
    logits = said.logits.float()
    truth = _mean(mask_loss(logits, batch.truth), batch.labelled)
    teacher = latent = torch.zeros((), device=logits.device)
    if batch.soft is not None:
        teacher = mask_loss(logits, batch.soft).mean()
    if batch.latent is not None and said.latent is not None and recipe.latent_weight:
        apart = (said.latent.float() - batch.latent).square().mean(dim=(1, 2, 3))
        latent = _mean(apart, batch.plain)
    total = truth + teaching * (teacher + recipe.latent_weight * latent)
    return StudentLosses(total, truth, teacher, latent)


def _mean(losses: Tensor, wanted: Tensor) -> Tensor:
    """The mean over those wanted; 0 where none is."""
    return (losses * wanted).sum() / wanted.sum().clamp(min=1)
