"""The network that a diffusion of masks is told by: a UNet on the picture, which finds a rough mask of its own.

Two convolutions at each scale, a maximum between scales, bilinear steps on the way up. On the way down whole channels
are dropped in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNorm, double

_SLOPE = 0.01  # of a rectifier below 0


class Told(NamedTuple):
    """What a picture tells the diffusion."""

    decoded: Tensor  # the last features of the way up, at the picture's size
    deepest: Tensor  # those of the coarsest grid
    logits: Tensor  # of the rough mask


class ConditionUNet(nn.Module):
    """The network, of this many channels from the finest scale; it takes pictures of any size."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        inputs = (3, *widths)
        # The coarsest scale gives as many channels as the scale above it has: it is joined with that one's.
        given = (*widths[:-1], widths[-2])
        self.downs = nn.ModuleList(
            _two(inputs[scale], width, given[scale], dropout) for scale, width in enumerate(widths)
        )
        # Each step of the way up gives what the scale above it has, the last one its own.
        outputs = (widths[0], *widths[:-2])
        self.ups = nn.ModuleList(
            _two(2 * width, width, out, 0.0) for width, out in zip(widths[:-1], outputs, strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1, bias=False)

    def forward(self, pixels: Tensor) -> Told:
        """Read the picture."""
        found: list[Tensor] = []
        x = pixels
        for down in self.downs:
            x = down(F.max_pool2d(x, 2) if found else x)
            found.append(x)
        deepest = found.pop()
        for up in reversed(self.ups):
            x = up(torch.cat([double(x), found.pop()], dim=1))
        return Told(x, deepest, self.head(x))


class _ConvNormLeaky(ConvNorm):
    """A convolution, some of its channels, normalised and rectified."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(inputs, outputs)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.drop(self.conv(x))), _SLOPE)


def _two(inputs: int, between: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(_ConvNormLeaky(inputs, between, dropout), _ConvNormLeaky(between, outputs, dropout))
