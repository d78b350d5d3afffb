"""The network that takes noise out of a latent or a mask, in the shapes that latent and guided diffusion gave it.

As latent diffusion has it for small latents, blocks of two convolutions learn from the step's number as a scale and a
shift behind a normalisation; blocks of their own halve and double the grid; self-attention stands behind each block of
all scales but the coarsest. As guided diffusion has it, the step is a shift alone, single convolutions change the
grid, and self-attention stands at the scales that are named. Linear layers of the attention are 1x1 convolutions. A
grid of an odd side is rounded up on the way down and cut on the way up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
    attentive: tuple[int, ...] | None = None  # scales with self-attention; None: all but the coarsest
    told: Literal["scale and shift", "shift"] = "scale and shift"  # what a block learns from the step
    moves: Literal["blocks", "convolutions"] = "blocks"  # what halves and doubles the grid


class Denoiser(nn.Module):
    """A noisy latent and its step's number to the noise in it."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.width, self.shape = shape.width, shape
        self.deep = deep = 4 * shape.width  # features of a step
        self.step = nn.Sequential(nn.Linear(shape.width, deep), nn.SiLU(), nn.Linear(deep, deep), nn.SiLU())
        self.first = nn.Conv2d(shape.inputs, shape.width, 3, padding=1)
        widths, last = [shape.width * factor for factor in shape.multipliers], len(shape.multipliers) - 1
        attentive = range(last) if shape.attentive is None else shape.attentive
        channels, skips = shape.width, [shape.width]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for scale, width in enumerate(widths):
            for _ in range(shape.blocks):
                self.downs.append(_Stage(self._block(channels, width), scale in attentive, shape.heads))
                channels = width
                skips.append(channels)
            if scale < last:
                self.downs.append(_Stage(self._move(channels, "halve"), False, 0))
                skips.append(channels)
        self.middle = _Stage(self._block(channels, channels), True, shape.heads)
        self.behind = self._block(channels, channels)
        for scale, width in reversed(list(enumerate(widths))):
            for number in range(shape.blocks + 1):
                block = self._block(channels + skips.pop(), width)
                channels = width
                # The last one of a scale brings the grid of the next.
                above = self._move(width, "double") if scale and number == shape.blocks else None
                self.ups.append(_Stage(block, scale in attentive, shape.heads, above))
        self.norm, self.head = _norm(channels), _silent(nn.Conv2d(channels, shape.outputs, 3, padding=1))

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        """The noise in N×C×H×W latents at steps N."""
        told = self.told_of(step)
        x, skips = self.down(self.first(latent), told)
        return self.up(self.behind(self.middle(x, told), told), skips, told)

    def told_of(self, step: Tensor) -> Tensor:
        """What the blocks learn of steps N."""
        told: Tensor = self.step(waves(step, self.width))
        return told

    def down(self, x: Tensor, told: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest grid of what the first convolution gave, and the skips."""
        skips = [x]
        for stage in self.downs:
            x = stage(x, told)
            skips.append(x)
        return x, skips

    def up(self, x: Tensor, skips: list[Tensor], told: Tensor) -> Tensor:
        """The noise, from the coarsest grid and the skips."""
        skips = list(skips)
        for stage in self.ups:
            skip = skips.pop()
            x = stage(torch.cat([_cut(x, skip), skip], dim=1), told)
        noise: Tensor = self.head(F.silu(self.norm(x)))
        return noise

    def _block(self, inputs: int, outputs: int, move: str = "") -> _Block:
        return _Block(inputs, outputs, self.deep, self.shape, move)

    def _move(self, channels: int, move: str) -> _Block | _Move:
        return _Move(channels, move) if self.shape.moves == "convolutions" else self._block(channels, channels, move)


class _Stage(nn.Module):
    """A block, attention behind it where that is wanted, and the block to the next grid where there is one."""

    def __init__(self, block: _Block | _Move, attends: bool, heads: int, above: _Block | _Move | None = None) -> None:
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

    def __init__(self, inputs: int, outputs: int, deep: int, shape: DenoiserShape, move: str = "") -> None:
        super().__init__()
        self.outputs, self.move, self.scales = outputs, move, shape.told == "scale and shift"
        self.norm, self.conv = _norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told = nn.Linear(deep, 2 * outputs if self.scales else outputs)
        self.second, self.drop = _norm(outputs), nn.Dropout(shape.dropout)
        self.out = _silent(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.around: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Refine x."""
        found = self.conv(self._moved(F.silu(self.norm(x))))
        told = self.told(told)[:, :, None, None]
        if self.scales:
            scale, shift = told.chunk(2, dim=1)
            found = self.second(found) * (1 + scale) + shift
        else:
            found = self.second(found + told)
        found = self.out(self.drop(F.silu(found)))
        refined: Tensor = self.around(self._moved(x)) + found
        return refined

    def _moved(self, x: Tensor) -> Tensor:
        if self.move == "halve":
            high, wide = x.shape[-2] % 2, x.shape[-1] % 2
            return F.avg_pool2d(F.pad(x, (0, wide, 0, high), mode="replicate") if high or wide else x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.move == "double" else x


class _Move(nn.Module):
    """One convolution to half or twice the grid; the step's number is nothing to it."""

    def __init__(self, channels: int, move: str) -> None:
        super().__init__()
        self.outputs, self.doubles = channels, move == "double"
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if self.doubles else 2, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The other grid."""
        del told
        moved: Tensor = self.conv(F.interpolate(x, scale_factor=2.0) if self.doubles else x)
        return moved


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
