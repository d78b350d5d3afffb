"""SDSeg: diffusion of the mask's latent in a frozen autoencoder, told of the picture, and undone in a single step.

A trainable copy of the autoencoder's encoder reads the picture; what it gives stands beside the noisy latent. Two
distances are trained alike: of the noise, and of the latent that is left without it. A picture is segmented from pure
noise at the last step. That noise is drawn once and kept with the weights, so that a picture has one mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.denoiser import Denoiser, DenoiserShape
from gms_rt.model.comparators.diffusion import NoiseSchedule, stored_noise
from gms_rt.model.frozen_latents import FrozenLatents
from gms_rt.model.tokenizer import Tokenizer

_WIDTH, _MULTIPLIERS, _BLOCKS, _HEADS = 192, (1, 2, 2, 4, 4), 2, 8
_DROPOUT = 0.2
_STEPS, _FIRST, _LAST = 1000, 0.0015, 0.0155


class SdSeg(nn.Module):
    """The network for pictures of one size."""

    def __init__(self, size: int, tokenizer: Tokenizer) -> None:
        super().__init__()
        spec = tokenizer.spec
        self.latents = FrozenLatents(tokenizer)
        self.encoder = tokenizer.trainable_encoder()
        shape = DenoiserShape(2 * spec.channels, spec.channels, _WIDTH, _MULTIPLIERS, _BLOCKS, _HEADS, _DROPOUT)
        self.denoiser = Denoiser(shape)
        self.schedule = NoiseSchedule(_STEPS, _FIRST, _LAST, "root")
        self.register_buffer("noise", stored_noise(1, spec.channels, size // spec.stride, size // spec.stride))

    def training_loss(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The distance of the noise at steps drawn for each picture, and that of the latent without it."""
        with torch.no_grad():
            latent = self.latents.scaled_latent(masks.expand(-1, 3, -1, -1)).float()
        step = torch.randint(_STEPS, latent.shape[:1]).to(latent.device)
        noise = torch.randn(latent.shape).to(latent.device)
        noisy = self.schedule.noisy(latent, noise, step)
        found = self._noise_in(noisy, pixels, step).float()
        return F.l1_loss(found, noise) + F.l1_loss(self.schedule.clean(noisy, found, step), latent)

    def probability(self, pixels: Tensor) -> Tensor:
        """The mask, N×1×H×W in [0, 1]."""
        noise = self.get_buffer("noise").expand(len(pixels), -1, -1, -1)
        step = torch.full((len(pixels),), _STEPS - 1, device=pixels.device)
        return self.latents.probability(self.schedule.clean(noise, self._noise_in(noise, pixels, step), step))

    def _noise_in(self, noisy: Tensor, pixels: Tensor, step: Tensor) -> Tensor:
        told = self.latents.scaled(self.encoder(self.latents.in_range(pixels)))
        found: Tensor = self.denoiser(torch.cat([noisy, told], dim=1), step)
        return found
