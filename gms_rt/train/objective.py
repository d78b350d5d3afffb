"""What a step minimises: the latents' distance, the mask as the linear decoder draws it, or as the decoder does.

Steps on cached latents take the first two, the others what the recipe's `loss` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gms_rt.model.gms import Gms
from gms_rt.train.batches import Batch
from gms_rt.train.linear_decoder import linear_decoder_loss
from gms_rt.train.losses import dice_loss, latent_loss
from gms_rt.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Losses:
    """The sum to minimise, and its parts."""

    total: Tensor
    latent: Tensor
    drawn: Tensor


def losses(
    gms: Gms, recipe: TrainingRecipe, phase: str, batch: Batch, outputs: list[Tensor], linear: Tensor | None
) -> Losses:
    """The losses of the supervised heads' latents, the output first; the batch is on the model's device.

    `linear` is the fitted linear decoder, or None where none fits or none is wanted.
    """
    latent = torch.stack([latent_loss(output.float(), batch.target) for output in outputs]).sum()
    nothing = torch.zeros((), device=latent.device)
    if phase == "latent" and linear is not None:
        guessed = torch.stack([linear_decoder_loss(output.float(), linear, batch.mask) for output in outputs]).sum()
        return Losses(recipe.latent_weight * latent + recipe.linear_decoder * guessed, latent, nothing)
    if phase == "latent" or recipe.loss == "latent":
        return Losses(latent, latent, nothing)
    heads = outputs if recipe.decoded == "all" else outputs[:1]
    smooth = recipe.dice_smooth
    drawn = torch.stack([dice_loss(gms.probability(head).float(), batch.mask, smooth) for head in heads]).sum()
    return Losses(drawn if recipe.loss == "dice" else recipe.latent_weight * latent + drawn, latent, drawn)
