"""SwinUNet: UNet's shape out of Swin's blocks, four scales of two blocks, from patches of 4x4 pixels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm
from gms_rt.model.comparators.windows import swin_blocks, window_side

_PATCH, _WIDTHS, _BLOCKS = 4, (96, 192, 384, 768), 2
_DROP = 0.1  # of the deepest block's branches; it rises evenly


class _Merge(nn.Module):
    """Four positions become one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.reduce = ChannelNorm(4 * channels), nn.Conv2d(4 * channels, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The next scale."""
        merged: Tensor = self.reduce(self.norm(F.pixel_unshuffle(x, 2)))
        return merged


class _Expand(nn.Module):
    """A position becomes factor times factor."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.widen = nn.Conv2d(inputs, outputs * factor**2, 1, bias=False)
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The scale above."""
        expanded: Tensor = self.norm(F.pixel_shuffle(self.widen(x), self.factor))
        return expanded


class SwinUNet(nn.Module):
    """The network for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.widths, window = _WIDTHS, window_side(size)
        grids = [size // _PATCH // 2**level for level in range(len(_WIDTHS))]
        last = _BLOCKS * len(_WIDTHS) - 1
        shares = [_DROP * block / last for block in range(last + 1)]
        drops = [shares[_BLOCKS * level : _BLOCKS * (level + 1)] for level in range(len(_WIDTHS))]
        stages = list(zip(_WIDTHS, grids, drops, strict=True))
        self.patches, self.patch_norm = nn.Conv2d(3, _WIDTHS[0], _PATCH, _PATCH), ChannelNorm(_WIDTHS[0])
        self.downs = nn.ModuleList(swin_blocks(width, grid, window, drop) for width, grid, drop in stages)
        self.merges = nn.ModuleList(_Merge(width) for width in _WIDTHS[:-1])
        self.deepest = ChannelNorm(_WIDTHS[-1])
        self.expands = nn.ModuleList(_Expand(below, width, 2) for width, below in itertools.pairwise(_WIDTHS))
        self.joins = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in _WIDTHS[:-1])
        self.ups = nn.ModuleList(swin_blocks(width, grid, window, drop) for width, grid, drop in stages[:-1])
        self.finest = ChannelNorm(_WIDTHS[0])
        self.full = _Expand(_WIDTHS[0], _WIDTHS[0], _PATCH)
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        x, skips = self.patch_norm(self.patches(pixels)), []
        for down, merge in zip(list(self.downs)[:-1], self.merges, strict=True):
            x = down(x)
            skips.append(x)
            x = merge(x)
        x = self.deepest(self.downs[-1](x))
        skips = self.refine_skips(skips, pixels)
        for number in reversed(range(len(self.ups))):
            x = torch.cat([self.expands[number](x), skips[number]], dim=1)
            x = self.ups[number](self.joins[number](x))
        logits: Tensor = self.head(self.full(self.finest(x)))
        return logits

    def refine_skips(self, skips: list[Tensor], pixels: Tensor) -> list[Tensor]:
        """What becomes of the skips before they join the way up: nothing here."""
        del pixels
        return skips
