"""EGE-UNet: some fifty thousand parameters at six scales.

Its two ideas: attention as products with small learned maps over each pair of axes (group multi-axis Hadamard product),
and skips that join the scale below, the scale itself and the mask as it is known so far at four dilations (group
aggregation bridge). Every scale's mask is trained.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm, double

_WIDTHS = (8, 16, 24, 32, 48, 64)
_PLAIN = 3  # scales that are one convolution; the deeper ones are Hadamard products
_GRID = 8  # side of the learned maps
_DILATIONS = (1, 2, 5, 7)
_SIDE_WEIGHTS = (0.5, 0.4, 0.3, 0.2, 0.1)  # of the masks at half the size and below; the result's weight is 1


class EgeUNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        scales = enumerate(itertools.pairwise((3, *_WIDTHS)))
        self.downs = nn.ModuleList(_block(number, a, b) for number, (a, b) in scales)
        pairs = list(itertools.pairwise(_WIDTHS))
        self.ups = nn.ModuleList(_block(number, b, a) for number, (a, b) in enumerate(pairs, start=1))
        self.bridges = nn.ModuleList(_Bridge(a, b) for a, b in pairs)
        self.masks = nn.ModuleList(nn.Conv2d(a, 1, 1) for a, _ in pairs)
        # None behind the deepest scale.
        self.down_norms = nn.ModuleList(nn.GroupNorm(4, width) for width in _WIDTHS[:-1])
        self.up_norms = nn.ModuleList(nn.GroupNorm(4, width) for width in _WIDTHS[:-1])
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        return self._all(pixels)[0]

    def supervised(self, pixels: Tensor) -> tuple[tuple[float, Tensor], ...]:
        """The logits of every scale at full size, with their weights."""
        result, *sides = self._all(pixels)
        full = [F.interpolate(side, size=result.shape[-2:], mode="bilinear") for side in sides]
        return ((1.0, result), *zip(_SIDE_WEIGHTS, full, strict=True))

    def _all(self, pixels: Tensor) -> list[Tensor]:
        """The result, and the masks of the scales from fine to coarse."""
        x, skips = pixels, []
        for down, norm in zip(list(self.downs)[:-1], self.down_norms, strict=True):
            x = F.gelu(F.max_pool2d(norm(down(x)), 2))
            skips.append(x)
        below = x = F.gelu(self.downs[-1](x))
        sides: list[Tensor] = []
        for number in reversed(range(len(self.ups))):
            x = self.up_norms[number](self.ups[number](x))
            x = F.gelu(x if below.shape[1] == _WIDTHS[-1] else double(x))
            sides.insert(0, self.masks[number](x))
            below = self.bridges[number](below, skips[number], sides[0])
            x = x + below
        return [double(self.head(x)), *sides]


def _block(number: int, inputs: int, outputs: int) -> nn.Module:
    if number < _PLAIN:
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    return _HadamardProducts(inputs, outputs)


class _AxisMap(nn.Module):
    """A learned map over two axes, brought to their lengths, smoothed, and multiplied with the values."""

    def __init__(self, channels: int, high: bool, wide: bool) -> None:
        super().__init__()
        self.high, self.wide = high, wide
        self.grid = nn.Parameter(torch.ones(1, channels, _GRID if high else 1, _GRID if wide else 1))
        kernel = (3 if high else 1, 3 if wide else 1)
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x."""
        size = (x.shape[2] if self.high else 1, x.shape[3] if self.wide else 1)
        weighed: Tensor = x * self.smooth(F.interpolate(self.grid, size=size, mode="bilinear", align_corners=True))
        return weighed


class _HadamardProducts(nn.Module):
    """A quarter of the channels for each pair of axes, and a quarter for a depthwise convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        quarter = inputs // 4
        self.before = ChannelNorm(inputs)
        self.maps = nn.ModuleList(
            _AxisMap(quarter, high, wide) for high, wide in ((True, True), (True, False), (False, True))
        )
        self.local = nn.Sequential(
            nn.Conv2d(quarter, quarter, 1), nn.GELU(), nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter)
        )
        self.after = ChannelNorm(inputs)
        self.out = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.GELU(), nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix x along its axes."""
        *weighed, rest = self.before(x).chunk(4, dim=1)
        parts = [weigh(part) for weigh, part in zip(self.maps, weighed, strict=True)]
        mixed: Tensor = self.out(self.after(torch.cat([*parts, self.local(rest)], dim=1)))
        return mixed


class _DilatedConv(nn.Conv2d):
    """Each channel alone, with gaps; in FP32 on a CPU.

    In BF16 torch 2.13 writes beyond its gradient there where pixels come before channels: infinite weights, or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class _Bridge(nn.Module):
    """A skip that also sees the scale below and the mask."""

    def __init__(self, channels: int, below: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(below, channels, 1)
        group = channels // 2 + 1  # a quarter of each scale, and the mask
        self.groups = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(group), _DilatedConv(group, group, 3, padding=dilation, dilation=dilation, groups=group)
            )
            for dilation in _DILATIONS
        )
        self.tail = nn.Sequential(ChannelNorm(4 * group), nn.Conv2d(4 * group, channels, 1))

    def forward(self, below: Tensor, skip: Tensor, mask: Tensor) -> Tensor:
        """The skip as the way up takes it."""
        high = F.interpolate(self.reduce(below), size=skip.shape[-2:], mode="bilinear", align_corners=True)
        quarters = zip(self.groups, high.chunk(4, dim=1), skip.chunk(4, dim=1), strict=True)
        joined: Tensor = self.tail(torch.cat([each(torch.cat([a, b, mask], dim=1)) for each, a, b in quarters], dim=1))
        return joined
