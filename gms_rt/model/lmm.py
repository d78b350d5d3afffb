"""The latent mapping model: image latent in, mask latent out, at the same resolution throughout.

Four encoder and four decoder blocks of two convolutions and one attention over all positions, joined by
concatenation. With deep supervision every decoder block has a head; the last head is the output.

With `levels`, inner activations of the tokenizer's encoder come in beside the image latent: standardised by fixed
statistics, and added to the first convolution's output through a 1x1 convolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.config import values_as_set
from gms_rt.errors import ConfigError

_EPS = 1e-6  # of every group normalisation
_QUIET = 0.01  # of a level's mean deviation, which no channel's falls below: silent channels are not blown up
_LATER = ("levels", "pooling", "level_channels")  # keys that earlier versions did not know, written where they are set


@dataclass(frozen=True)
class LmmConfig:
    """The shape of a latent mapping model; the defaults are the paper's (1.56 M parameters)."""

    latent_channels: int = 4  # of the tokenizer's latents, in and out
    width: int = 32  # channels of the first convolution
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # channels of each encoder block, as multiples of `width`
    groups: int = 16  # of every group normalisation; divides `width`
    deep_supervision: bool = True  # a head on every decoder block, else on the last alone
    levels: tuple[int, ...] = ()  # strides of the encoder's inner activations that come in, too
    pooling: Literal["average", "max", "both"] = "average"  # how they are brought to the latent's grid
    level_channels: tuple[int, ...] = ()  # of each level, pooled; the tokenizer decides

    def __post_init__(self) -> None:
        if len(self.level_channels) != len(self.levels) or min((*self.levels, *self.level_channels, 1)) < 1:
            raise ConfigError(
                f"levels {list(self.levels)} do not go with level_channels {list(self.level_channels)}",
                fix="give positive strides, and as many numbers of channels",
            )
        if self.latent_channels < 1 or self.width < 1 or len(self.multipliers) < 2 or min(self.multipliers) < 1:
            raise ConfigError(
                f"a latent mapping model cannot have {self.latent_channels} latent channels, "
                f"width {self.width} and multipliers {self.multipliers}",
                fix="give positive numbers and at least two multipliers",
            )
        if self.groups < 1 or self.width % self.groups:
            raise ConfigError(
                f"width {self.width} does not divide into {self.groups} groups",
                fix="make the width a multiple of the groups",
            )

    @property
    def parts(self) -> tuple[int, ...]:
        """The channels of what comes in: the latent's, then each level's."""
        return (self.latent_channels, *self.level_channels)

    def to_values(self) -> dict[str, Any]:
        """Plain values for `config.toml`, without later keys that are not set."""
        return values_as_set(self, _LATER)


class Attention(nn.Module):
    """Single-head self-attention over all positions, residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the height·width positions of x."""
        h = self.norm(x)
        query, key, value = (part(h).flatten(2) for part in (self.query, self.key, self.value))
        mixed = _attend_in_bf16(query, key, value) if _slow_in_torch(query) else _attend(query, key, value)
        attended: Tensor = self.out(mixed.reshape(x.shape))
        return x + attended


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over the last axis: for each of the queries, the values mixed by how well their keys fit."""
    queries, keys, values = (part.transpose(1, 2).unsqueeze(1) for part in (query, key, value))
    mixed = F.scaled_dot_product_attention(queries, keys, values)
    return mixed.squeeze(1).transpose(1, 2)


def _slow_in_torch(query: Tensor) -> bool:
    """Whether torch's own attention takes longer: forward and back in BF16 on a CPU, 2.3 to 2.8 times at 28x28.

    It converts there, and multiplies strided copies. Nothing else goes this way: graphs are exported from the other.
    """
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad


def _attend_in_bf16(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same in plain products, of which each is one fast kernel."""
    scaled = (query * query.shape[1] ** -0.5).transpose(1, 2).contiguous()
    shares = torch.matmul(scaled, key).softmax(-1)
    return torch.matmul(shares, value.transpose(1, 2)).transpose(1, 2)


class MappingBlock(nn.Module):
    """Two pre-activated 3x3 convolutions with a shortcut, then attention."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=_EPS)
        self.act1 = nn.PReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=_EPS)
        self.act2 = nn.PReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.attention = Attention(outputs, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map x to as many positions of `outputs` channels."""
        h = self.conv1(self.act1(self.norm1(x)))
        h = self.conv2(self.act2(self.norm2(h)))
        mapped: Tensor = self.attention(self.shortcut(x) + h)
        return mapped


class Head(nn.Sequential):
    """Features to a latent."""

    def __init__(self, channels: int, latent_channels: int, groups: int) -> None:
        super().__init__(
            nn.GroupNorm(groups, channels, eps=_EPS),
            nn.SiLU(),
            nn.Conv2d(channels, latent_channels, 3, padding=1, bias=False),
        )


class LevelInput(nn.Module):
    """The encoder's inner activations, standardised channel by channel, to the first convolution's width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))
        self.mix = nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, level: Tensor) -> Tensor:
        """What this level adds. A 1x1 convolution takes mean and deviation in without a loss at export."""
        mixed: Tensor = self.mix((level - self.mean) / self.deviation)
        return mixed

    @torch.no_grad()
    def fit(self, level: Tensor) -> None:
        """Take the statistics of these examples."""
        deviation = level.std(dim=(0, 2, 3), keepdim=True)
        self.mean.copy_(level.mean(dim=(0, 2, 3), keepdim=True))
        self.deviation.copy_(deviation.clamp(min=max(float(deviation.mean()) * _QUIET, _EPS)))


class LatentMapper(nn.Module):
    """The latent mapping model (LMM).

    It takes one tensor, the image latent with the pooled levels behind it, or each of them by itself.
    """

    def __init__(self, config: LmmConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LmmConfig()
        widths = [config.width, *(config.width * m for m in config.multipliers)]
        self.stem = nn.Conv2d(config.latent_channels, config.width, 3, padding=1)
        self.down = nn.ModuleList(MappingBlock(a, b, config.groups) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList()
        below = widths[-1]
        for skip in reversed(widths[:-1]):
            self.up.append(MappingBlock(skip + below, skip, config.groups))
            below = skip
        headed = list(reversed(widths[:-1])) if config.deep_supervision else [config.width]
        self.heads = nn.ModuleList(Head(w, config.latent_channels, config.groups) for w in headed)
        self.levels = nn.ModuleList(LevelInput(channels, config.width) for channels in config.level_channels)
        self._initialise()

    def forward(self, *encoded: Tensor) -> Tensor:
        """The mask latent."""
        return self._head(-1, self.features(*encoded)[-1])

    def supervised_latents(self, *encoded: Tensor) -> list[Tensor]:
        """The latents that training supervises, the output first: all heads but the deepest, or just one."""
        features = self.features(*encoded)
        if not self.config.deep_supervision:
            return [self._head(-1, features[-1])]
        return [self._head(i, features[i]) for i in range(len(features) - 1, 0, -1)]

    def fit_levels(self, encoded: Tensor) -> None:
        """Take the levels' statistics from these examples."""
        _, *found = torch.split(encoded, list(self.config.parts), dim=1)
        for level, given in zip(self._level_inputs(), found, strict=True):
            level.fit(given)

    def features(self, *encoded: Tensor) -> list[Tensor]:
        """The outputs of the decoder blocks, deepest first."""
        skips = [self._first(encoded)]
        for block in self.down:
            skips.append(block(skips[-1]))
        below = skips.pop()
        found = []
        for block in self.up:
            below = block(torch.cat([skips.pop(), below], dim=1))
            found.append(below)
        return found

    def _first(self, encoded: Sequence[Tensor]) -> Tensor:
        if not self.levels:
            first: Tensor = self.stem(*encoded)
            return first
        latent, *found = encoded if len(encoded) > 1 else torch.split(encoded[0], list(self.config.parts), dim=1)
        first = self.stem(latent)
        for level, given in zip(self.levels, found, strict=True):
            first = first + level(given)
        return first

    def _level_inputs(self) -> list[LevelInput]:
        return [module for module in self.levels if isinstance(module, LevelInput)]

    def _head(self, index: int, features: Tensor) -> Tensor:
        latent: Tensor = self.heads[index](features)
        return latent

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for level in self._level_inputs():  # standardised input keeps its size, whatever the number of channels
            nn.init.kaiming_normal_(level.mix.weight, mode="fan_in", nonlinearity="linear")
