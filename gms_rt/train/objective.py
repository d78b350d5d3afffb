"""What a step minimises: the latents' distance, the mask as a sketch of the decoder draws it, or as the decoder does.

Steps on cached latents take the first two, the others what the recipe's `loss` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gms_rt.model.gms import Gms
from gms_rt.train.batches import Batch
from gms_rt.train.linear_decoder import sketch_loss
from gms_rt.train.losses import dice_loss, latent_loss
from gms_rt.train.recipe import Recipe
from gms_rt.train.schedule import Place


@dataclass(frozen=True)
class Losses:
    """The sum to minimise, and its parts."""

    total: Tensor
    latent: Tensor
    drawn: Tensor


def losses(
    gms: Gms, recipe: Recipe, place: Place, batch: Batch, outputs: list[Tensor], sketch: Tensor | None
) -> Losses:
    """The losses of the supervised heads' latents, the output first; the batch lies where the model does."""
    latent = torch.stack([latent_loss(output.float(), batch.target) for output in outputs]).sum()
    nothing = torch.zeros((), device=latent.device)
    if place.phase == "latent" and sketch is not None:
        guessed = torch.stack([sketch_loss(output.float(), sketch, batch.mask) for output in outputs]).sum()
        return Losses(recipe.latent_weight * latent + recipe.sketch * guessed, latent, nothing)
    if place.phase == "latent" or recipe.loss == "latent":
        return Losses(latent, latent, nothing)
    heads = outputs if recipe.decoded == "all" else outputs[:1]
    drawn = torch.stack([dice_loss(gms.probability(head).float(), batch.mask) for head in heads]).sum()
    return Losses(drawn if recipe.loss == "dice" else recipe.latent_weight * latent + drawn, latent, drawn)
