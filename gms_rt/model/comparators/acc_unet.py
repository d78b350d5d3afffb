"""ACC-UNet: UNet of convolutions alone that imitates what a transformer sees.

A block joins each position with means and maxima of growing patches around it (hierarchical aggregation of
neighbourhood context, HANC). Skips pass residual convolutions (ResPath) and then see each other three times
(multi-level feature compilation, MLFC). Squeeze and excitation stands behind every convolution that leaves a block.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNorm

_WIDTHS = (32, 64, 128, 256, 512)
_LEVELS = (3, 3, 3, 2, 1)  # of context at each scale: patches of up to 4, 4, 4, 2 and 1 pixels along a side
_WIDEN = 3  # inside a block
_WIDEST = {2: 34}  # by scale: the last block there on the way up, wide as stage 3 of a Swin transformer is deep
_COMPILATIONS = 3
_SQUEEZE = 8


class _Excitation(nn.Module):
    """Weighs the channels by what all of the picture says of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, channels // _SQUEEZE), nn.Linear(channels // _SQUEEZE, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x."""
        said = torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(x.mean(dim=(2, 3))))))
        return F.leaky_relu(self.norm(x * said[:, :, None, None]))


class _ConvExcite(nn.Module):
    """A convolution with normalisation, and squeeze and excitation behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv, self.weigh = ConvNorm(inputs, outputs, kernel), _Excitation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and weigh."""
        weighed: Tensor = self.weigh(F.leaky_relu(self.conv(x)))
        return weighed


class _Block(nn.Module):
    """HANC: widened, seen at several patch sizes, narrowed, with a way around."""

    def __init__(self, inputs: int, outputs: int, levels: int, widen: int = _WIDEN) -> None:
        super().__init__()
        wide = widen * inputs
        self.levels = levels
        self.widen, self.near = ConvNorm(inputs, wide, 1), ConvNorm(wide, wide, groups=wide)
        self.context = ConvNorm((2 * levels - 1) * wide, inputs, 1)
        self.norm, self.out = nn.BatchNorm2d(inputs), _ConvExcite(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        wide = F.leaky_relu(self.near(F.leaky_relu(self.widen(x))))
        seen = [wide]
        for pool in (F.avg_pool2d, F.max_pool2d):
            sides = [2**level for level in range(1, self.levels)]
            seen += [F.interpolate(pool(wide, side), scale_factor=float(side)) for side in sides]
        refined: Tensor = self.out(self.norm(x + F.leaky_relu(self.context(torch.cat(seen, dim=1)))))
        return refined


class _Path(nn.Module):
    """A skip: residual convolutions, the more the farther apart the two ways are."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_ConvExcite(width, width, 3) for _ in range(length))
        self.norm, self.last = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Bring x closer to the way up."""
        for step in self.steps:
            x = x + step(x)
        result: Tensor = self.last(F.leaky_relu(self.norm(x)))
        return result


class _Compilation(nn.Module):
    """MLFC: each skip takes from all of them, brought to its size."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.takes = nn.ModuleList(_ConvExcite(sum(widths), width) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.joins = nn.ModuleList(_ConvExcite(2 * width, width) for width in widths)
        self.afters = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.weighs = nn.ModuleList(_Excitation(width) for width in widths)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        """The skips, each with what it took."""
        found = []
        parts = zip(self.takes, self.norms, self.joins, self.afters, self.weighs, strict=True)
        for number, (take, norm, join, after, weigh) in enumerate(parts):
            own = skips[number]
            every = torch.cat([_brought(skip, number - other) for other, skip in enumerate(skips)], dim=1)
            taken = F.leaky_relu(norm(take(every)))
            found.append(weigh(F.leaky_relu(after(join(torch.cat([taken, own], dim=1)) + own))))
        return found


class ACCUNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        scales = list(zip(_WIDTHS, _LEVELS, strict=True))
        starts = (3, *_WIDTHS[:-1])
        self.downs = nn.ModuleList(
            nn.Sequential(_Block(start, width, levels), _Block(width, width, levels))
            for start, (width, levels) in zip(starts, scales, strict=True)
        )
        skips = _WIDTHS[:-1]
        self.paths = nn.ModuleList(_Path(width, len(skips) - number) for number, width in enumerate(skips))
        self.compilations = nn.ModuleList(_Compilation(skips) for _ in range(_COMPILATIONS))
        self.lifts = nn.ModuleList(
            nn.ConvTranspose2d(below, width, 2, 2) for width, below in itertools.pairwise(_WIDTHS)
        )
        self.ups = nn.ModuleList(
            nn.Sequential(
                _Block(2 * width, width, levels), _Block(width, width, levels, _WIDEST.get(number, _WIDEN))
            )
            for number, (width, levels) in enumerate(scales[:-1])
        )  # fmt: skip
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.downs[0](pixels)]
        for down in list(self.downs)[1:]:
            found.append(down(F.max_pool2d(found[-1], 2)))
        x = found.pop()
        skips = [path(skip) for path, skip in zip(self.paths, found, strict=True)]
        for compilation in self.compilations:
            skips = compilation(skips)
        for number in reversed(range(len(self.ups))):
            x = self.ups[number](torch.cat([self.lifts[number](x), skips[number]], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _brought(x: Tensor, scales: int) -> Tensor:
    """Smaller by so many scales, by means; larger where that is negative."""
    if scales > 0:
        return F.avg_pool2d(x, 2**scales)
    return F.interpolate(x, scale_factor=float(2**-scales)) if scales else x
