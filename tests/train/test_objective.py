"""The losses of a step, as the recipe words them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.phantom_folders import write_tokenizer

from gms_rt.model.gms import Gms
from gms_rt.model.loading import load_tokenizer
from gms_rt.train.batches import Batch
from gms_rt.train.losses import latent_loss
from gms_rt.train.objective import losses
from gms_rt.train.recipe import load_recipe
from gms_rt.train.schedule import Schedule
from gms_rt.train.start import first_weights


@pytest.mark.parametrize("smooth", [1.0, 1e-5])
def test_the_official_losses_are_summed_over_three_heads(tmp_path: Path, smooth: float) -> None:
    small = ["size=32", "width=8", "groups=4", "batch=2", "latent_noise=0", f"dice_smooth={smooth}"]
    recipe = load_recipe("official", small)
    frozen = load_tokenizer(write_tokenizer(tmp_path))
    gms = Gms(frozen, first_weights(recipe, 4).mapper)
    chance = torch.Generator().manual_seed(0)
    image, target = torch.randn(2, 2, 4, 8, 8, generator=chance)
    mask = (torch.rand(2, 1, 32, 32, generator=chance) < 0.3).float()
    mask[1] = 0  # a case without a lesion
    outputs = gms.mapper.supervised_latents(image)
    assert len(outputs) == 3
    place = Schedule(recipe, 2).place(0)
    found = losses(gms, recipe, place.phase, Batch(image, target, mask, ["a", "b"]), outputs, None)
    dice = torch.zeros(())
    for output in outputs:
        drawn = gms.probability(output)
        both, either = (drawn * mask).sum(dim=(1, 2, 3)), (drawn + mask).sum(dim=(1, 2, 3))
        dice = dice + (1 - (2 * both + smooth) / (either + smooth)).mean()
    assert torch.allclose(found.drawn, dice, atol=1e-6)
    assert torch.allclose(found.latent, sum(latent_loss(output, target) for output in outputs), atol=1e-6)
    assert torch.allclose(found.total, found.latent + found.drawn)
    only = losses(gms, replace(recipe, loss="dice"), place.phase, Batch(image, target, mask, ["a", "b"]), outputs, None)
    assert torch.equal(only.total, only.drawn)
