"""Generative medical segmentation, joined: normalise, encode, scale, map, decode, mean, clamp, round.

The only place for this order, for training, export and tests alike. Images and probabilities are float tensors in
[0, 1], or uint8 of 0 to 255 where a name says `levels`; the tokenizer's own range is handled here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gms_rt.errors import ConfigError
from gms_rt.model.lmm import LatentMapper
from gms_rt.model.tokenizer import Tokenizer


class Gms(nn.Module):
    """A frozen tokenizer and a latent mapping model.

    The stages of the exported graph are `encode_levels`, `map` and `draw_levels`.
    """

    def __init__(self, tokenizer: Tokenizer, mapper: LatentMapper) -> None:
        super().__init__()
        if tokenizer.spec.channels != mapper.config.latent_channels:
            raise ConfigError(
                f"the tokenizer has {tokenizer.spec.channels} latent channels, "
                f"the latent mapping model {mapper.config.latent_channels}",
                where=tokenizer.spec.source,
                fix="use the tokenizer this model was trained with",
            )
        self.tokenizer = tokenizer
        self.mapper = mapper

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities N×1×H×W of N×3×H×W images."""
        return self.probability(self.map(self.encode(image)))

    def encode_levels(self, images: Tensor) -> Tensor:
        """Scaled latents of uint8 N×H×W×3 images. The cast comes first: TensorRT lets nothing else read uint8."""
        return self.encode(images.to(torch.float32).permute(0, 3, 1, 2) / 255)

    def encode(self, image: Tensor) -> Tensor:
        """Scaled latents of images (or of masks with three equal channels)."""
        low, high = self.tokenizer.spec.image_range
        latent = self.tokenizer.latent_mean(image * (high - low) + low)
        return (latent - self.tokenizer.spec.shift) * self.tokenizer.spec.scale

    def map(self, latent: Tensor) -> Tensor:
        """The scaled mask latent of a scaled image latent."""
        mapped: Tensor = self.mapper(latent)
        return mapped

    def probability(self, latent: Tensor) -> Tensor:
        """Draw a scaled mask latent: N×1×H×W in [0, 1]."""
        return self.drawing(latent).clamp(0, 1)

    def drawing(self, latent: Tensor) -> Tensor:
        """The drawn mask before `probability` clamps it."""
        low, high = self.tokenizer.spec.image_range
        decoded = self.tokenizer.decode(latent / self.tokenizer.spec.scale + self.tokenizer.spec.shift)
        return (decoded.mean(dim=1, keepdim=True) - low) / (high - low)

    def draw_levels(self, latent: Tensor) -> Tensor:
        """Draw a scaled mask latent: uint8 N×H×W×1, 255 for a probability of 1. The cast comes last."""
        return (self.probability(latent) * 255).round().permute(0, 2, 3, 1).to(torch.uint8)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities: what the exported graph computes."""
        return self.draw_levels(self.map(self.encode_levels(images)))[..., 0]
