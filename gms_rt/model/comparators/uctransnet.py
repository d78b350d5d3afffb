"""UCTransNet: UNet whose skips first see each other, channel by channel, in a transformer, and are then weighed.

channel_fusion.py is that transformer; here is the UNet around it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.channel_fusion import ChannelFusion
from gms_rt.model.comparators.layers import ConvNormReLU

_WIDTHS = (64, 128, 256, 512)
_PATCHES = (16, 8, 4, 2)  # pixels of each skip along a side of a token
_STRIDE = 16  # pixels of the picture along a side of a token
_LAYERS = 4


class _Up(nn.Module):
    """A skip, its channels weighed by what the skip and the way up say of them, joined with the way up."""

    def __init__(self, below: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.by_skip, self.by_below = nn.Linear(skip, skip), nn.Linear(below, skip)
        self.blocks = _two(below + skip, outputs)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """The scale above."""
        below = F.interpolate(below, scale_factor=2.0)
        said = self.by_skip(skip.mean(dim=(2, 3))) + self.by_below(below.mean(dim=(2, 3)))
        weighed = F.relu(skip * torch.sigmoid(said / 2)[:, :, None, None])
        joined: Tensor = self.blocks(torch.cat([weighed, below], dim=1))
        return joined


class UCTransNet(ChannelFusion):
    """The network for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__(_WIDTHS, _PATCHES, size // _STRIDE, _LAYERS)
        self.first = ConvNormReLU(3, _WIDTHS[0])
        downs = [*itertools.pairwise(_WIDTHS), (_WIDTHS[-1], _WIDTHS[-1])]
        self.downs = nn.ModuleList(_two(a, b) for a, b in downs)
        outputs = (_WIDTHS[0], *_WIDTHS[:-1])
        scales = zip((*outputs[1:], _WIDTHS[-1]), _WIDTHS, outputs, strict=True)
        self.ups = nn.ModuleList(_Up(below, skip, given) for below, skip, given in scales)
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.first(pixels)]
        for down in self.downs:
            found.append(down(F.max_pool2d(found[-1], 2)))
        x = found.pop()
        skips = self.fuse(found)
        for number in reversed(range(len(self.ups))):
            x = self.ups[number](x, skips[number])
        logits: Tensor = self.head(x)
        return logits


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(inputs, outputs), ConvNormReLU(outputs, outputs))
