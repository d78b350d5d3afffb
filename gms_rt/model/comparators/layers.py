"""What several comparators are made of."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Module):
    """A convolution with batch normalisation, which folds into it for export."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class ConvNormReLU(ConvNorm):
    """The same with a ReLU behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, rectify."""
        return F.relu(super().forward(x))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        rows = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
        return rows.permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Leaves a residual branch out of a share of the pictures, in training alone."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The branch, or nothing."""
        if not self.training or not self.share:
            return x
        kept = (torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.share).to(x.dtype)
        return x * kept / (1 - self.share)


def double(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch normalisations are in the convolutions before them."""
    result = copy.deepcopy(module).eval()
    for layer in result.modules():
        if isinstance(layer, ConvNorm) and isinstance(layer.norm, nn.BatchNorm2d):
            layer.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(layer.conv, layer.norm)
            layer.norm = nn.Identity()
    return result
