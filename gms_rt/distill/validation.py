"""How good a student's weights are on the validation cases: the Dice of their masks at network size, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor

from gms_rt.distill.objective import mask_loss
from gms_rt.distill.pictures import Pictures
from gms_rt.model.student import Student
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.checkpoint import copy_weights

_BATCH = 32


class StudentValidation:
    """The validation cases, on the student's device if that is a GPU."""

    def __init__(self, student: Student, pictures: Pictures, device: torch.device) -> None:
        self._student, self._device = student, device
        self._images, self._masks = (torch.from_numpy(part).to(device) for part in (pictures.images, pictures.masks))

    def __len__(self) -> int:
        return len(self._images)

    @torch.no_grad()
    def score(self, weights: dict[str, Tensor]) -> tuple[float, float]:
        """Mean Dice and mean loss of the student with these weights; its own are restored."""
        current = copy_weights(self._student.state_dict())
        self._student.load_state_dict(weights)
        self._student.eval()
        scores, losses = [], []
        for start in range(0, len(self), _BATCH):
            images, masks = (part[start : start + _BATCH] for part in (self._images, self._masks))
            logits = self._student(_as_pixels(images)).float()
            found = (torch.sigmoid(logits)[:, 0] * 255).round() >= FOREGROUND
            truth = masks >= FOREGROUND
            scores.append(_dice(found, truth))
            losses.append(mask_loss(logits, truth[:, None].float()))
        self._student.load_state_dict(current)
        return float(torch.cat(scores).mean()), float(torch.cat(losses).mean())


def _as_pixels(images: Tensor) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def _dice(found: Tensor, truth: Tensor) -> Tensor:
    """Dice of each picture, as `gms_rt.metrics.dice` defines it."""
    overlap = (found & truth).flatten(1).sum(dim=1, dtype=torch.float64)
    total = found.flatten(1).sum(dim=1, dtype=torch.float64) + truth.flatten(1).sum(dim=1, dtype=torch.float64)
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), torch.ones_like(total))
