"""Generative medical segmentation, joined: normalise, encode, scale, map, decode, mean, clamp, round.

The only place for this order, for training, export and tests alike; the tokenizer's part of it is in
`frozen_latents.py`. What `encode` gives is what `map` takes: the scaled latent and, where the latent mapping model asks
for them, levels behind it: inner activations of the encoder, pooled to the latent's grid. Images and probabilities are
float tensors in [0, 1], in `encode_levels`, `encode_parts`, `encode_masks` and `draw_levels` uint8 grey levels of 0 to
255; the tokenizer's own range is handled here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gms_rt.errors import ConfigError
from gms_rt.model.frozen_latents import FrozenLatents
from gms_rt.model.lmm import LatentMapper
from gms_rt.model.tokenizer import Tokenizer


class Gms(FrozenLatents):
    """A frozen tokenizer and a latent mapping model.

    The stages of the exported graph are `encode_parts`, `map_parts` and `draw_levels`.
    """

    def __init__(self, tokenizer: Tokenizer, mapper: LatentMapper) -> None:
        super().__init__(tokenizer)
        if tokenizer.spec.channels != mapper.config.latent_channels:
            raise ConfigError(
                f"the tokenizer has {tokenizer.spec.channels} latent channels, "
                f"the latent mapping model {mapper.config.latent_channels}",
                where=tokenizer.spec.source,
                fix="use the tokenizer this model was trained with",
            )
        if pooled_channels(tokenizer, mapper.config.levels, mapper.config.pooling) != mapper.config.level_channels:
            raise ConfigError(
                f"the tokenizer's levels {list(mapper.config.levels)} do not have the "
                f"{list(mapper.config.level_channels)} channels that the latent mapping model takes",
                where=tokenizer.spec.source,
                fix="use the tokenizer this model was trained with",
            )
        self.mapper = mapper

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.mapper.parameters()).device

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities N×1×H×W of N×3×H×W images."""
        return self.probability(self.map(self.encode(image)))

    def encode_levels(self, images: Tensor) -> Tensor:
        """What `map` takes, of uint8 N×H×W×3 images."""
        return self.encode(_as_image(images))

    def encode_parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `map_parts` takes, of uint8 N×H×W×3 images: the scaled latent and each level."""
        return self._parts(_as_image(images))

    def encode_masks(self, masks: Tensor) -> Tensor:
        """Scaled latents alone, of masks as uint8 N×H×W×3 images."""
        return self.scaled_latent(_as_image(masks))

    def encode(self, image: Tensor) -> Tensor:
        """What `map` takes, of images (without levels also the scaled latents of masks with three equal channels)."""
        parts = self._parts(image)
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def map(self, encoded: Tensor) -> Tensor:
        """The scaled mask latent of an encoded image."""
        mapped: Tensor = self.mapper(encoded)
        return mapped

    def map_parts(self, *parts: Tensor) -> Tensor:
        """The same of a latent and levels that are not joined."""
        mapped: Tensor = self.mapper(*parts)
        return mapped

    def _parts(self, image: Tensor) -> tuple[Tensor, ...]:
        config = self.mapper.config
        if not config.levels:
            return (self.scaled_latent(image),)
        latent, levels = self.tokenizer.latent_and_levels(self.in_range(image), config.levels)
        return self.scaled(latent), *(_pooled(level, latent, config.pooling) for level in levels)

    def draw_levels(self, latent: Tensor) -> Tensor:
        """Draw a scaled mask latent: uint8 N×H×W×1, 255 for a probability of 1. The cast comes last."""
        return (self.probability(latent) * 255).round().permute(0, 2, 3, 1).to(torch.uint8)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities: what the exported graph computes."""
        return self.draw_levels(self.map(self.encode_levels(images)))[..., 0]


def pooled_channels(tokenizer: Tokenizer, levels: Sequence[int], pooling: str) -> tuple[int, ...]:
    """How many channels each of a tokenizer's levels has, pooled."""
    found = zip(levels, tokenizer.level_channels(levels), strict=True)
    twice = [pooling == "both" and stride < tokenizer.spec.stride for stride in levels]
    return tuple(count * (1 + both) for (_, count), both in zip(found, twice, strict=True))


def _as_image(images: Tensor) -> Tensor:
    # The cast comes first: TensorRT lets nothing else read uint8.
    return images.to(torch.float32).permute(0, 3, 1, 2) / 255


def _pooled(level: Tensor, latent: Tensor, pooling: str) -> Tensor:
    """A level at the latent's grid."""
    size = level.shape[-1] // latent.shape[-1]
    if size == 1:
        return level
    found = [F.avg_pool2d(level, size)] if pooling != "max" else []
    if pooling != "average":
        found.append(F.max_pool2d(level, size))
    return torch.cat(found, dim=1) if len(found) > 1 else found[0]
