"""How good a network's weights are on the validation cases: the Dice of its masks at network size, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gms_rt.arrays import U8
from gms_rt.model.mask_loss import mask_loss
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.checkpoint import copy_weights


class PixelValidation:
    """The validation cases, N×H×W×3 images and N×H×W masks, on the network's device if that is a GPU."""

    def __init__(self, network: nn.Module, images: U8, masks: U8, device: torch.device, batch: int = 32) -> None:
        self._network, self._batch = network, batch
        self._images, self._masks = (torch.from_numpy(part).to(device) for part in (images, masks))

    def __len__(self) -> int:
        return len(self._images)

    @torch.no_grad()
    def score(self, weights: dict[str, Tensor]) -> tuple[float, float]:
        """Mean Dice and mean loss of the network with these weights; its own are restored."""
        current = copy_weights(self._network.state_dict())
        self._network.load_state_dict(weights)
        self._network.eval()
        scores, losses = [], []
        for start in range(0, len(self), self._batch):
            images, masks = (part[start : start + self._batch] for part in (self._images, self._masks))
            logits = self._network(image_pixels(images)).float()
            found = (torch.sigmoid(logits)[:, 0] * 255).round() >= FOREGROUND
            truth = masks >= FOREGROUND
            scores.append(_dice(found, truth))
            losses.append(mask_loss(logits, truth[:, None].float()))
        self._network.load_state_dict(current)
        return float(torch.cat(scores).mean()), float(torch.cat(losses).mean())


def image_pixels(images: Tensor) -> Tensor:
    """N×3×H×W from 0 to 1 of uint8 N×H×W×3."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def _dice(found: Tensor, truth: Tensor) -> Tensor:
    """Dice of each picture, as `gms_rt.metrics.dice` defines it."""
    overlap = (found & truth).flatten(1).sum(dim=1, dtype=torch.float64)
    total = found.flatten(1).sum(dim=1, dtype=torch.float64) + truth.flatten(1).sum(dim=1, dtype=torch.float64)
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), torch.ones_like(total))
