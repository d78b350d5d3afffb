"""SME-SwinUNet: SwinUNet whose skips meet superpixels in a channel transformer, and pass external attention.

An interpretation in parts, never exact. From the paper are the parts: superpixels, UCTransNet's channel-wise fusion
(there MCCT), external attention on each skip. Their place, the widths and the single token for each whole skip, which
holds most of the parameters, are as the authors' public code arranges them and give the published 169.8 million. This
project's own reading are the superpixels (SLIC with 100 cells whose borders are drawn into the picture in yellow,
computed within the graph, in five steps and without a search for stray parts) and the skips (behind each scale's
blocks, as in this project's SwinUNet).

With a single token, what the transformer adds to a skip is the same at every position, and the external attention
behind it, whose shares are of positions, does not see that: superpixels and transformer do not change the mask. This is
so in the public code, too, and is kept because it is what has the published number of parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from gms_rt.model.comparators.channel_fusion import ChannelFusion
from gms_rt.model.comparators.superpixels import draw_superpixel_borders
from gms_rt.model.comparators.swin_unet import SwinUNet

_LAYERS = 4
_MEMORY = 8  # rows that external attention remembers
_TINY = 1e-9


class _ExternalAttention(nn.Module):
    """Attention to a few learned rows, the same for all pictures."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ask, self.answer = nn.Conv2d(channels, _MEMORY, 1, bias=False), nn.Conv2d(_MEMORY, channels, 1, bias=False)
        for layer in (self.ask, self.answer):
            nn.init.normal_(layer.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """What the rows say of each position."""
        count, _, high, wide = x.shape
        shares = self.ask(x).flatten(2).softmax(dim=2)
        shares = shares / (shares.sum(dim=1, keepdim=True) + _TINY)
        said: Tensor = self.answer(shares.reshape(count, _MEMORY, high, wide))
        return said


class SMESwinUNet(SwinUNet):
    """The network for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        skips = self.widths[:-1]
        widths = (skips[0] // 2, *skips)
        patches = [size // 2 ** (level + 1) for level in range(len(widths))]  # each skip as a whole
        self.superpixels = nn.Conv2d(3, widths[0], 3, 2, 1)
        self.fusion = ChannelFusion(widths, patches, 1, _LAYERS)
        self.externals = nn.ModuleList(_ExternalAttention(width) for width in skips)

    def refine_skips(self, skips: list[Tensor], pixels: Tensor) -> list[Tensor]:
        """The skips, each with what it took from all and from the superpixels, as the learned rows see it."""
        drawn = self.superpixels(draw_superpixel_borders(pixels))
        _, *fused = self.fusion.fuse([drawn, *skips])
        return [external(skip) for external, skip in zip(self.externals, fused, strict=True)]
