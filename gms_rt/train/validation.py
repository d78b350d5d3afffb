"""How good weights are on the validation cases: the Dice of their masks, and the distance of their latents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gms_rt.arrays import U8
from gms_rt.metrics import dice
from gms_rt.model.gms import Gms
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.checkpoint import copy_weights
from gms_rt.train.frozen_stages import FrozenStages
from gms_rt.train.latents import encode, encode_masks
from gms_rt.train.losses import latent_loss
from gms_rt.train.samples import Samples


class Validation:
    """The validation cases, encoded once: images, mask latents, masks."""

    def __init__(self, gms: Gms, samples: Samples, stages: FrozenStages | None = None) -> None:
        self._gms = gms
        self._stages = stages or gms  # who encodes and draws
        self._cases: list[tuple[Tensor, Tensor, U8]] = []
        for number in range(len(samples)):
            image, mask = samples.plain(number)
            self._cases.append((encode(self._stages, [image]), encode_masks(self._stages, [mask]), mask))

    def __len__(self) -> int:
        return len(self._cases)

    @torch.no_grad()
    def score(self, weights: dict[str, Tensor]) -> tuple[float, float]:
        """Mean Dice and mean latent loss of the mapper with these weights; its own are restored."""
        mapper = self._gms.mapper
        device = self._gms.device
        current = copy_weights(mapper.state_dict())
        mapper.load_state_dict(weights)
        mapper.eval()
        scores, losses = [], []
        for image, target, mask in self._cases:
            mapped = self._gms.map(image.to(device))
            losses.append(float(latent_loss(mapped, target.to(device))))
            levels = self._stages.draw_levels(mapped)[0, ..., 0].cpu().numpy()
            scores.append(dice(levels >= FOREGROUND, mask))
        mapper.load_state_dict(current)
        return float(np.mean(scores)), float(np.mean(losses))
