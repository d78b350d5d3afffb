"""MONAI's BasicUNet, by MONAI itself, as it is without further arguments."""

from __future__ import annotations

from torch import Tensor, nn

_WIDTHS = (32, 32, 64, 128, 256, 32)  # of MONAI


class BasicUNet(nn.Module):
    """The network; it takes pictures of any size."""

    def __init__(self, size: int) -> None:
        from monai.networks.nets import BasicUNet as MonaiBasicUNet

        super().__init__()
        del size
        self.network = MonaiBasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=_WIDTHS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        logits: Tensor = self.network(pixels)
        return logits
