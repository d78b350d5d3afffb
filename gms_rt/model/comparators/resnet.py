"""ResNet's stages of bottlenecks, the last two with dilations in the place of strides: everything behind stride 8."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ConvNorm, ConvNormReLU

_STRIDES, _DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)
WIDEN = 4  # what leaves a stage is so many times as wide as its bottlenecks


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a way around them."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(inputs, width, 1)
        self.second = ConvNormReLU(width, width, stride=stride, dilation=dilation)
        self.third = ConvNorm(width, WIDEN * width, 1)
        same = inputs == WIDEN * width and stride == 1
        self.around: nn.Module = nn.Identity() if same else ConvNorm(inputs, WIDEN * width, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return F.relu(self.third(self.second(self.first(x))) + self.around(x))


def dilated_stages(inputs: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.ModuleList:
    """Four stages behind a stem of so many channels, at strides 1, 2, 2 and 2 of what they are given."""
    stages = []
    for width, count, stride, dilation in zip(widths, blocks, _STRIDES, _DILATIONS, strict=True):
        # A stage whose stride became a dilation begins with the dilation of the one before it.
        begins = max(1, dilation // 2)
        found = [Bottleneck(inputs, width, stride, begins)]
        found += [Bottleneck(WIDEN * width, width, 1, dilation) for _ in range(count - 1)]
        stages.append(nn.Sequential(*found))
        inputs = WIDEN * width
    return nn.ModuleList(stages)
