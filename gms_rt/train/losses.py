"""The two losses of the method: in latent space, and on the drawn mask."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def latent_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of two latents."""
    return F.mse_loss(predicted, target)


def dice_loss(probability: Tensor, mask: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - Dice of soft masks, averaged over the batch; two empty masks agree."""
    probability, mask = probability.flatten(1), mask.flatten(1)
    overlap = (probability * mask).sum(dim=1)
    total = probability.sum(dim=1) + mask.sum(dim=1)
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()
