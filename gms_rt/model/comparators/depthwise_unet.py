"""A small UNet of depthwise blocks: each 3x3 convolution goes by channel, and a 1x1 convolution mixes them."""

from __future__ import annotations

import itertools

from torch import Tensor, cat, nn

from gms_rt.model.comparators.layers import ConvNormReLU, double

_WIDTHS = (32, 64, 128, 256, 512)  # channels, from half the picture's size on


class DepthwiseUNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        self.first = nn.Sequential(ConvNormReLU(3, _WIDTHS[0], stride=2), _separable(_WIDTHS[0], _WIDTHS[0]))
        pairs = list(itertools.pairwise(_WIDTHS))
        self.downs = nn.ModuleList(nn.Sequential(_separable(a, b, stride=2), _separable(b, b)) for a, b in pairs)
        self.ups = nn.ModuleList(nn.Sequential(_separable(a + b, a), _separable(a, a)) for a, b in pairs)
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.first(pixels)]
        for down in self.downs:
            found.append(down(found[-1]))
        x = found.pop()
        for up in reversed(self.ups):
            x = up(cat([found.pop(), double(x)], dim=1))
        return double(self.head(x))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(inputs, inputs, stride=stride, groups=inputs), ConvNormReLU(inputs, outputs, 1))
