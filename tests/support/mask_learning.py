"""A few pictures with easy masks, and how well a comparator with a loss of its own learns them."""

from __future__ import annotations

import torch

from gms_rt.model.comparators.network import Comparator
from gms_rt.train.device import tuned_torch


def squares(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four pictures of bright squares, and their masks."""
    masks = torch.zeros(4, 1, side, side)
    for number in range(4):
        masks[number, :, 4 * number : 4 * number + 12, 8:24] = 1
    return (0.2 + 0.6 * masks).expand(-1, 3, -1, -1).contiguous(), masks


def loss_left(made: Comparator, pixels: torch.Tensor, masks: torch.Tensor, steps: int) -> float:
    """The loss after so many steps, as a share of the loss before them."""
    torch.manual_seed(2)
    optimiser = torch.optim.AdamW([weight for weight in made.parameters() if weight.requires_grad], lr=5e-3)

    def loss(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found = made.training_loss(pixels, masks)
        assert found is not None
        return found

    made.train()
    with tuned_torch(threads=1):
        first = sum(float(loss(seed).detach()) for seed in range(5))
        for seed in range(100, 100 + steps):
            optimiser.zero_grad()
            loss(seed).backward()
            optimiser.step()
        return sum(float(loss(seed).detach()) for seed in range(5)) / first
