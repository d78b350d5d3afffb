"""Frozen tokenizers behind one small interface: from an image to its latent mean, from a latent back to an image.

A tokenizer never trains: its weights take no gradient and it stays in eval mode. `encode` runs without a graph;
`decode` lets gradients through to the latent, so that a loss on the drawn mask reaches the latent mapping model.
Both work in the tokenizer's own image range and on unscaled latents; `gms.py` does the scaling, once.

The encoder's inner activations are there too, by stride: at each, the last one that a convolution reads.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gms_rt.errors import ConfigError, UsageError

JsonValue = str | int | float | list[float] | None


@dataclass(frozen=True)
class TokenizerSpec:
    """Which frozen tokenizer this is, and its numbers that the pipeline needs: `tokenizer.json`."""

    kind: str  # sd-vae, taesd, vq, onnx or compvis
    source: str  # hub id, folder or file
    channels: int  # of a latent
    stride: int  # pixels per latent position, along each side
    scale: float = 1.0  # a scaled latent is (latent - shift) * scale
    shift: float = 0.0
    image_range: tuple[float, float] = (-1.0, 1.0)  # what black and white are for the encoder and the decoder
    revision: str | None = None  # of the hub
    sha256: str | None = None  # of the weights, see `weights_sha256`; known once a run names the tokenizer

    def __post_init__(self) -> None:
        if self.channels < 1 or self.stride < 1 or self.scale == 0 or self.image_range[0] >= self.image_range[1]:
            raise ConfigError(f"the tokenizer's numbers make no sense: {asdict(self)}", where=self.source)

    def to_json(self) -> dict[str, JsonValue]:
        """Plain values for `tokenizer.json`."""
        values: dict[str, JsonValue] = {**asdict(self), "image_range": list(self.image_range)}
        return values


class Tokenizer(nn.Module, ABC):
    """A frozen encoder and decoder."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, image: Tensor) -> Tensor:
        """The latent mean of N×3×H×W images in the tokenizer's range, without a graph."""
        with torch.no_grad():
            return self.latent_mean(image)

    @abstractmethod
    def latent_mean(self, image: Tensor) -> Tensor:
        """What `encode` computes, traceable."""

    @abstractmethod
    def latent_and_inner(self, image: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """The latent mean, and by stride the last inner activation that a convolution reads, traceable."""

    def latent_and_levels(self, image: Tensor, strides: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The latent mean and the encoder's inner activations at these strides, from one pass of the encoder."""
        latent, inner = self.latent_and_inner(image)
        missing = [str(stride) for stride in strides if stride not in inner]
        if missing:
            raise UsageError(
                f"the encoder has no inner activations at stride {', '.join(missing)}",
                where=self.spec.source,
                fix=f"choose levels among {', '.join(str(stride) for stride in sorted(inner))}",
            )
        return latent, [inner[stride] for stride in strides]

    def level_channels(self, strides: Sequence[int]) -> tuple[int, ...]:
        """How many channels the inner activations at these strides have."""
        if not strides:
            return ()
        parameter = next(iter(self.state_dict().values()))
        side = 4 * self.spec.stride
        with torch.no_grad():
            _, found = self.latent_and_levels(torch.zeros(1, 3, side, side, device=parameter.device), strides)
        return tuple(each.shape[1] for each in found)

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """N×3×H×W images from unscaled latents; gradients flow to `latent`."""

    @abstractmethod
    def trainable_encoder(self) -> nn.Module:
        """A copy of the encoder that trains: it computes what `latent_mean` does, and starts from its weights."""

    @property
    def codebook(self) -> Tensor | None:
        """The vectors that a latent's positions are taken from; None where latents are continuous."""
        return None

    def decode_codes(self, codes: Tensor) -> Tensor:
        """N×3×H×W images from N×h×w numbers of the codebook."""
        raise UsageError("has no codebook", where=self.spec.source, fix="use a VQ tokenizer: vq, or vq:FOLDER")

    def train(self, mode: bool = True) -> Tokenizer:
        """Frozen means frozen: a tokenizer stays in eval mode."""
        super().train(False)
        return self

    def freeze(self) -> Tokenizer:
        """Take the weights out of training; every loader ends with this."""
        self.requires_grad_(False)
        return self.train(False)

    def told_in_graph(self) -> dict[str, JsonValue]:
        """What a graph says of it: its name and the hash of its weights, not where it was on this machine."""
        place = Path(self.spec.source)
        named = place.name if place.is_absolute() else self.spec.source
        return replace(self.spec, source=named, sha256=self.weights_sha256()).to_json()

    def weights_sha256(self) -> str:
        """A hash over all weights and buffers, by name; equal before and after any training."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            flat = value.detach().cpu().contiguous()
            digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class FirstChannels(nn.Module):
    """The first channels alone: of mean and variance, the mean."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Leave the rest out."""
        return x[:, : self.count]
