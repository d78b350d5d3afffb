"""The network that takes noise out of a latent, in the shape that latent diffusion gave it for small latents.

Blocks of two convolutions learn from the step's number as a scale and a shift behind a normalisation; blocks of their
own halve and double the grid; self-attention stands behind each block of all scales but the coarsest. Linear layers of
the attention are 1x1 convolutions. A grid of an odd side is rounded up on the way down and cut on the way up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DenoiserShape:
    """How large a denoiser is."""

    inputs: int  # channels of the noisy latent and of what it is told
    outputs: int  # channels of the noise
    width: int  # channels of the finest scale
    multipliers: tuple[int, ...]  # of the width, from the finest scale
    blocks: int  # of each scale on the way down; one more on the way up
    heads: int  # of the attention
    dropout: float


class Denoiser(nn.Module):
    """A noisy latent and its step's number to the noise in it."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.width = shape.width
        deep = 4 * shape.width
        self.step = nn.Sequential(nn.Linear(shape.width, deep), nn.SiLU(), nn.Linear(deep, deep), nn.SiLU())
        self.first = nn.Conv2d(shape.inputs, shape.width, 3, padding=1)
        widths, last = [shape.width * factor for factor in shape.multipliers], len(shape.multipliers) - 1
        channels, skips = shape.width, [shape.width]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for scale, width in enumerate(widths):
            for _ in range(shape.blocks):
                self.downs.append(_Stage(_Block(channels, width, deep, shape.dropout), scale < last, shape.heads))
                channels = width
                skips.append(channels)
            if scale < last:
                self.downs.append(_Stage(_Block(channels, channels, deep, shape.dropout, "halve"), False, 0))
                skips.append(channels)
        self.middle = _Stage(_Block(channels, channels, deep, shape.dropout), True, shape.heads)
        self.behind = _Block(channels, channels, deep, shape.dropout)
        for scale, width in reversed(list(enumerate(widths))):
            for number in range(shape.blocks + 1):
                block = _Block(channels + skips.pop(), width, deep, shape.dropout)
                channels = width
                # The last one of a scale brings the grid of the next.
                above = (
                    _Block(width, width, deep, shape.dropout, "double") if scale and number == shape.blocks else None
                )
                self.ups.append(_Stage(block, scale < last, shape.heads, above))
        self.norm, self.head = _norm(channels), _silent(nn.Conv2d(channels, shape.outputs, 3, padding=1))

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        """The noise in N×C×H×W latents at steps N."""
        told = self.step(waves(step, self.width))
        x = self.first(latent)
        skips = [x]
        for stage in self.downs:
            x = stage(x, told)
            skips.append(x)
        x = self.behind(self.middle(x, told), told)
        for stage in self.ups:
            skip = skips.pop()
            x = stage(torch.cat([_cut(x, skip), skip], dim=1), told)
        noise: Tensor = self.head(F.silu(self.norm(x)))
        return noise


class _Stage(nn.Module):
    """A block, attention behind it where that is wanted, and the block to the next grid where there is one."""

    def __init__(self, block: _Block, attends: bool, heads: int, above: _Block | None = None) -> None:
        super().__init__()
        self.block, self.above = block, above
        self.attention = _Attention(block.outputs, heads) if attends else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Refine x."""
        x = self.block(x, told)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.above is None else self.above(x, told)


class _Block(nn.Module):
    """Two convolutions with a way around them, at one grid or to the next."""

    def __init__(self, inputs: int, outputs: int, deep: int, dropout: float, move: str = "") -> None:
        super().__init__()
        self.outputs, self.move = outputs, move
        self.norm, self.conv = _norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told = nn.Linear(deep, 2 * outputs)
        self.second, self.drop = _norm(outputs), nn.Dropout(dropout)
        self.out = _silent(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.around: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Refine x."""
        found = self.conv(self._moved(F.silu(self.norm(x))))
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        found = self.out(self.drop(F.silu(self.second(found) * (1 + scale) + shift)))
        refined: Tensor = self.around(self._moved(x)) + found
        return refined

    def _moved(self, x: Tensor) -> Tensor:
        if self.move == "halve":
            high, wide = x.shape[-2] % 2, x.shape[-1] % 2
            return F.avg_pool2d(F.pad(x, (0, wide, 0, high), mode="replicate") if high or wide else x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.move == "double" else x


class _Attention(nn.Module):
    """Every position sees every other."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = _norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.project = _silent(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        count, channels, high, wide = x.shape
        rows = self.qkv(self.norm(x)).reshape(count, 3 * self.heads, channels // self.heads, high * wide)
        query, key, value = rows.chunk(3, dim=1)
        chances = ((query * query.shape[2] ** -0.5).transpose(-2, -1) @ key).softmax(dim=-1)
        refined: Tensor = x + self.project((value @ chances.transpose(-2, -1)).reshape(x.shape))
        return refined


def waves(step: Tensor, width: int) -> Tensor:
    """A step's number as cosines and sines of many lengths, N×width."""
    half = width // 2
    speeds = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=step.device))
    turns = step.to(torch.float32)[:, None] * speeds
    return torch.cat([turns.cos(), turns.sin()], dim=1)


def _cut(x: Tensor, like: Tensor) -> Tensor:
    high, wide = like.shape[-2:]
    return x if x.shape[-2:] == like.shape[-2:] else x[..., :high, :wide]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _silent(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution that gives nothing until it is trained."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
