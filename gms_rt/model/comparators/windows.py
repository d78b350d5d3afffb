"""Swin's blocks: attention within windows, shifted in every other block. Linear layers are 1x1 convolutions.

So INT8 finds them. A window's side is the largest number up to 8 that divides the coarsest grid: 7 for pictures of 224
pixels and 8 for 256, as published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm, DropPath


def window_side(size: int, stride: int = 32) -> int:
    """The side of the windows for pictures of this size, whose coarsest grid has this stride.

    >>> window_side(224), window_side(256), window_side(64)
    (7, 8, 2)
    """
    coarsest = size // stride
    return max(side for side in range(1, 9) if coarsest % side == 0)


class WindowAttention(nn.Module):
    """Self-attention within windows of a square grid, with a learned bias for each offset."""

    def __init__(self, channels: int, heads: int, grid: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.offsets = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.offsets, std=0.02)
        self.register_buffer("_index", _offset_index(window), persistent=False)
        self.register_buffer("_apart", _regions_apart(grid, window, shift) if shift else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let every position see its window."""
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (2, 3))
        query, key, value = (self._windows(part) for part in self.qkv(x).chunk(3, dim=1))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        index: Tensor = self.get_buffer("_index")
        scores = scores + self.offsets[index.flatten()].view(*index.shape, self.heads).permute(2, 0, 1)[None, :, None]
        if self.shift:
            scores = scores + self.get_buffer("_apart")[None, None]
        mixed = self.project(self._picture(scores.softmax(dim=-1) @ value, x))
        return torch.roll(mixed, (self.shift, self.shift), (2, 3)) if self.shift else mixed

    def _windows(self, x: Tensor) -> Tensor:
        """N×C×H×W to N×heads×windows×positions×channels."""
        count, channels, high, wide = x.shape
        side, deep = self.window, channels // self.heads
        parts = x.reshape(count * self.heads, deep, high // side, side, wide // side, side).permute(0, 2, 4, 3, 5, 1)
        return parts.reshape(count, self.heads, (high // side) * (wide // side), side * side, deep)

    def _picture(self, parts: Tensor, like: Tensor) -> Tensor:
        """The way back."""
        count, channels, high, wide = like.shape
        side, deep = self.window, channels // self.heads
        parts = parts.reshape(count * self.heads, high // side, wide // side, side, side, deep)
        return parts.permute(0, 5, 1, 3, 2, 4).reshape(count, channels, high, wide)


class SwinBlock(nn.Module):
    """Attention and two linear layers, the first `widen` times as wide, each with a way around it."""

    def __init__(
        self, channels: int, heads: int, grid: int, window: int, shift: int, drop: float = 0.0, widen: int = 4
    ) -> None:
        super().__init__()
        self.first, self.second = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = WindowAttention(channels, heads, grid, window, shift)
        self.widen, self.narrow = nn.Conv2d(channels, widen * channels, 1), nn.Conv2d(widen * channels, channels, 1)
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        x = x + self.drop(self.attention(self.first(x)))
        refined: Tensor = x + self.drop(self.narrow(F.gelu(self.widen(self.second(x)))))
        return refined


def swin_blocks(
    channels: int, grid: int, window: int, drops: list[float], *, heads: int = 0, widen: int = 4
) -> nn.Sequential:
    """Blocks of this grid, every other one shifted; as many as there are shares of dropped branches.

    Without `heads` each has 32 channels.
    """
    half = window // 2 if grid > window else 0
    return nn.Sequential(
        *(
            SwinBlock(channels, heads or channels // 32, grid, window, half if number % 2 else 0, drop, widen)
            for number, drop in enumerate(drops)
        )
    )


def _offset_index(window: int) -> Tensor:
    """The number of the offset of each pair of positions in a window."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])
    apart = places[:, :, None] - places[:, None, :] + window - 1
    return apart[0] * (2 * window - 1) + apart[1]


def _regions_apart(grid: int, window: int, shift: int) -> Tensor:
    """-100 for pairs that share a shifted window but not a neighbourhood, as the picture wraps around."""
    part = torch.zeros(grid, dtype=torch.long)
    part[grid - window : grid - shift], part[grid - shift :] = 1, 2
    regions = 3 * part[:, None] + part[None, :]
    count = grid // window
    split = regions.reshape(count, window, count, window).permute(0, 2, 1, 3).reshape(count**2, window**2)
    return torch.where(split[:, :, None] == split[:, None, :], 0.0, -100.0)
