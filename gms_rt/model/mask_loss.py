"""The loss of networks that draw the mask themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus 1 - Dice of each picture; the target may be soft."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2, 3))
    probability, target = torch.sigmoid(logits).flatten(1), target.flatten(1)
    overlap, total = (probability * target).sum(dim=1), probability.sum(dim=1) + target.sum(dim=1)
    # One pixel on both sides: two empty masks agree. A soft target's Dice with itself is below 1, which moves nothing.
    return entropy + 1 - (2 * overlap + 1) / (total + 1)
