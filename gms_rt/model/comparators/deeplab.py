"""DeepLabV3 on a ResNet-50 of stride 8, plain or with styles mixed in training (MixStyle, DSU).

Both of these change mean and deviation of each channel between stages: MixStyle mixes them with another picture's, DSU
draws them around what the batch shows. In evaluation nothing is changed, and no parameter is added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNormReLU
from gms_rt.model.comparators.resnet import WIDEN, dilated_stages

_STEM = 64
_WIDTHS, _BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)  # of ResNet-50
_RATES, _POOLED = (12, 24, 36), 256
_SHARE = 0.5  # of steps in which styles change, at each place
_ALPHA = 0.1  # of the Beta distribution that MixStyle draws from
_TINY = 1e-6


class _Pyramid(nn.Module):
    """The same features at several dilations, and their mean over the picture."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvNormReLU(inputs, _POOLED, 1),
                *(ConvNormReLU(inputs, _POOLED, dilation=rate) for rate in _RATES),
            ]
        )
        self.whole = ConvNormReLU(inputs, _POOLED, 1)
        self.mix = nn.Sequential(ConvNormReLU((len(_RATES) + 2) * _POOLED, _POOLED, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """What a position, its surroundings and the picture say."""
        whole = self.whole(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        mixed: Tensor = self.mix(torch.cat([*(branch(x) for branch in self.branches), whole], dim=1))
        return mixed


class DeepLabV3(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        del size
        self.stem = ConvNormReLU(3, _STEM, 7, stride=2)
        self.stages = dilated_stages(_STEM, _WIDTHS, _BLOCKS)
        self.pyramid = _Pyramid(WIDEN * _WIDTHS[-1])
        self.last = ConvNormReLU(_POOLED, _POOLED)
        self.head = nn.Conv2d(_POOLED, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        x = F.max_pool2d(self.restyle(0, self.stem(pixels)), 3, 2, 1)
        for number, stage in enumerate(self.stages, start=1):
            x = self.restyle(number, stage(x))
        logits = self.head(self.last(self.pyramid(x)))
        return F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear")

    def restyle(self, place: int, x: Tensor) -> Tensor:
        """The features behind the stem (0) or a stage; the plain network leaves them as they are."""
        del place
        return x


class DeepLabV3MixStyle(DeepLabV3):
    """With styles mixed between pictures behind the first two stages."""

    def restyle(self, place: int, x: Tensor) -> Tensor:
        """In half of the steps: mean and deviation of each channel between those of two pictures."""
        if not self.training or place not in (1, 2) or torch.rand(()) >= _SHARE:
            return x
        mean, spread = _style(x)
        # Beta from two draws of Gamma, which follow torch's seed.
        gamma = torch._standard_gamma(torch.full((2, x.shape[0]), _ALPHA)) + 1e-8
        own = (gamma[0] / gamma.sum(dim=0)).to(x.device, x.dtype).view(-1, 1, 1, 1)
        other = torch.randperm(x.shape[0]).to(x.device)
        mixed_mean = own * mean + (1 - own) * mean[other]
        return (x - mean) / spread * (own * spread + (1 - own) * spread[other]) + mixed_mean


class DeepLabV3Dsu(DeepLabV3):
    """With styles drawn around the pictures' own, behind the stem and every stage."""

    def restyle(self, place: int, x: Tensor) -> Tensor:
        """In half of the steps: mean and deviation of each channel drawn as widely as they differ in the batch."""
        if not self.training or x.shape[0] < 2 or torch.rand(()) >= _SHARE:
            return x
        (mean, spread), drawn = _style(x), torch.randn((2, *x.shape[:2], 1, 1)).to(x.device, x.dtype)
        new_mean, new_spread = (
            part + noise * (part.var(dim=0, keepdim=True) + _TINY).sqrt()
            for part, noise in ((mean, drawn[0]), (spread, drawn[1]))
        )
        return (x - mean) / spread * new_spread + new_mean


def _style(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of each picture."""
    return x.mean(dim=(2, 3), keepdim=True), (x.var(dim=(2, 3), keepdim=True) + _TINY).sqrt()
