"""MultiResUNet: blocks whose three chained convolutions see 3, 5 and 7 pixels, and skips with convolutions on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNorm, ConvNormReLU

_ALPHA = 1.67  # so that a block has about the parameters of UNet's
_WIDTHS = (32, 64, 128, 256, 512)


class _Block(nn.Module):
    """A sixth, a third and a half of the channels from chained convolutions, and a way around them."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        wide = _ALPHA * width
        parts = int(wide / 6), int(wide / 3), int(wide / 2)
        self.outputs = sum(parts)
        self.around = ConvNorm(inputs, self.outputs, 1)
        self.chain = nn.ModuleList(ConvNormReLU(a, b) for a, b in zip((inputs, *parts[:-1]), parts, strict=True))
        self.joined, self.out = nn.BatchNorm2d(self.outputs), nn.BatchNorm2d(self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        found = [x]
        for part in self.chain:
            found.append(part(found[-1]))
        result: Tensor = self.out(F.relu(self.joined(torch.cat(found[1:], dim=1)) + self.around(x)))
        return result


class _Path(nn.Module):
    """A skip: residual convolutions, the more the farther apart the two ways are."""

    def __init__(self, inputs: int, width: int, length: int) -> None:
        super().__init__()
        starts = [inputs] + [width] * (length - 1)
        self.around = nn.ModuleList(ConvNorm(start, width, 1) for start in starts)
        self.blocks = nn.ModuleList(ConvNormReLU(start, width) for start in starts)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in starts)

    def forward(self, x: Tensor) -> Tensor:
        """Bring x closer to the way up."""
        for around, block, norm in zip(self.around, self.blocks, self.norms, strict=True):
            x = norm(F.relu(block(x) + around(x)))
        return x


class MultiResUNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        downs: list[_Block] = []
        for width in _WIDTHS:
            downs.append(_Block(downs[-1].outputs if downs else 3, width))
        self.downs = nn.ModuleList(downs)
        scales = list(zip(_WIDTHS[:-1], downs[:-1], strict=True))
        self.paths = nn.ModuleList(
            _Path(down.outputs, width, len(scales) - number) for number, (width, down) in enumerate(scales)
        )
        blocks = [_Block(2 * width, width) for width in _WIDTHS[:-1]]
        below = [*(block.outputs for block in blocks[1:]), downs[-1].outputs]
        self.lifts = nn.ModuleList(
            nn.ConvTranspose2d(inputs, width, 2, 2) for inputs, width in zip(below, _WIDTHS[:-1], strict=True)
        )
        self.ups = nn.ModuleList(blocks)
        self.head = nn.Conv2d(blocks[0].outputs, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.downs[0](pixels)]
        for down in list(self.downs)[1:]:
            found.append(down(F.max_pool2d(found[-1], 2)))
        x = found.pop()
        for number in reversed(range(len(self.ups))):
            skip = self.paths[number](found.pop())
            x = self.ups[number](torch.cat([self.lifts[number](x), skip], dim=1))
        logits: Tensor = self.head(x)
        return logits
