"""UNet: two 3x3 convolutions at each of five scales, and skips from the way down to the way up."""

from __future__ import annotations

import itertools

from torch import Tensor, cat, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNormReLU, double

_WIDTHS = (64, 128, 256, 512, 512)


class _Up(nn.Module):
    """The scale below brought up and joined with the skip."""

    def __init__(self, below: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.lift = nn.Conv2d(below, below, 1)
        self.blocks = _two(below + skip, outputs)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.blocks(cat([skip, self.lift(double(below))], dim=1))
        return joined


class UNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        self.first = _two(3, _WIDTHS[0])
        self.downs = nn.ModuleList(_two(a, b) for a, b in itertools.pairwise(_WIDTHS))
        # Each way up gives what the scale above it takes: the width of the skip there.
        outputs = (_WIDTHS[0], *_WIDTHS[:-2])
        scales = zip(outputs[1:] + _WIDTHS[-1:], _WIDTHS[:-1], outputs, strict=True)
        self.ups = nn.ModuleList(_Up(below, skip, given) for below, skip, given in scales)
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.first(pixels)]
        for down in self.downs:
            found.append(down(F.max_pool2d(found[-1], 2)))
        x = found.pop()
        for up in reversed(self.ups):
            x = up(x, found.pop())
        logits: Tensor = self.head(x)
        return logits


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(inputs, outputs), ConvNormReLU(outputs, outputs))
