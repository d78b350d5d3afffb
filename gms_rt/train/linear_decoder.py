"""The linear decoder: one linear 3x3 filter and a pixel shuffle, fitted in closed form, which draws masks from mask
latents nearly as the real decoder does.

Latent distance treats every error of a latent alike, and the decoder, which knows better, costs more than the latent
mapping model. Mask latents are so simple that a linear filter draws masks with a Dice of 0.96-0.98 (published
tokenizers, lesions), at next to no cost; so steps on cached latents can learn from the mask, too. Only training
uses it, and a tokenizer whose latents hold masks in another way trains without.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gms_rt.train.losses import dice_loss

_STEEP = 8.0  # how sharply a drawing around 0.5 is taken for background or lesion
_RIDGE = 1e-4  # of the latents' mean square
_EXPLAINED = 0.6  # share of the masks' variance below which the filter would mislead


def fit_linear_decoder(latents: Tensor, masks: Tensor) -> Tensor | None:
    """The filter, stride² x (9·channels + 1), from scaled mask latents and their masks; None where none fits."""
    stride = masks.shape[-1] // latents.shape[-1]
    seen = _patches(latents.double())
    wanted = F.unfold(masks.double(), stride, stride=stride).transpose(1, 2).flatten(0, 1)
    gram = seen.T @ seen
    gram += torch.eye(len(gram), dtype=gram.dtype) * _RIDGE * gram.diagonal().mean()
    fitted = torch.linalg.solve(gram, seen.T @ wanted)
    missed = (seen @ fitted - wanted).square().mean()
    fits = bool(missed < (1 - _EXPLAINED) * wanted.var(correction=0))
    return fitted.T.float().contiguous() if fits else None


def draw_linear(latents: Tensor, fitted: Tensor) -> Tensor:
    """Masks N x 1 x H x W as the filter draws them, about 0 to 1."""
    filters = fitted[:, :-1].reshape(len(fitted), latents.shape[1], 3, 3)
    drawn = F.conv2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), filters, fitted[:, -1])
    return F.pixel_shuffle(drawn, round(len(fitted) ** 0.5))


def linear_decoder_loss(latents: Tensor, fitted: Tensor, mask: Tensor) -> Tensor:
    """Dice and cross entropy of the mask that the filter draws."""
    likely = _STEEP * (draw_linear(latents, fitted) - 0.5)
    return dice_loss(likely.sigmoid(), mask) + F.binary_cross_entropy_with_logits(likely, mask)


def _patches(latents: Tensor) -> Tensor:
    """Every position's 3x3 neighbourhood and a one, a row each."""
    near = F.unfold(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1)
    return torch.cat([near, torch.ones(len(near), 1, dtype=near.dtype)], dim=1)
