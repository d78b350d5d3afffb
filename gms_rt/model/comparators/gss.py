"""GSS: the mask as a picture of two colours, that picture as codes of a frozen VQ tokenizer, and a network that guesses
the codes from the image.

This is the variant without training of the way from mask to picture and back (GSS-FF): its colours are as far from each
other as can be, which for two classes is black and white, and a drawn pixel is of the class whose colour is nearer. A
second head classifies pixels; it is trained with a smaller weight and draws nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import UsageError
from gms_rt.model.comparators.layers import ChannelNorm, ConvNormReLU
from gms_rt.model.comparators.resnet import WIDEN, dilated_stages
from gms_rt.model.comparators.windows import swin_blocks, window_side
from gms_rt.model.diffusers_tokenizer import nearest_codes
from gms_rt.model.frozen_latents import FrozenLatents
from gms_rt.model.tokenizer import Tokenizer

_STEM = 64
_WIDTHS, _BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)  # of ResNet-50
_GATHERED, _MIXED, _LAST = 384, 512, 2048  # channels of each stage's part, of all parts mixed, and before the codes
_HEADS, _LAYERS, _FEED = 16, 2, 2  # of the transformer on the codes' grid
_CODES_WEIGHT, _PIXELS_WEIGHT = 0.8, 0.2


class Gss(nn.Module):
    """The network for pictures of one size."""

    def __init__(self, size: int, tokenizer: Tokenizer) -> None:
        super().__init__()
        if tokenizer.codebook is None:
            raise UsageError(
                "GSS guesses codes, and this tokenizer has no codebook",
                where="--tokenizer",
                fix="use a VQ tokenizer: vq, or vq:FOLDER",
            )
        self.grid = size // tokenizer.spec.stride
        self.latents = FrozenLatents(tokenizer)
        self.stem = nn.Sequential(
            ConvNormReLU(3, _STEM // 2, stride=2), ConvNormReLU(_STEM // 2, _STEM // 2), ConvNormReLU(_STEM // 2, _STEM)
        )
        self.stages = dilated_stages(_STEM, _WIDTHS, _BLOCKS)
        self.of_codes, self.of_pixels = _Gather(_MIXED), _Gather(_GATHERED)
        drops = [0.0] * _LAYERS
        window = window_side(self.grid, 1)
        self.transformer = swin_blocks(_MIXED, self.grid, window, drops, heads=_HEADS, widen=_FEED)
        self.norm = ChannelNorm(_MIXED)
        self.before_codes = ConvNormReLU(_MIXED, _LAST, 1)
        self.codes = nn.Conv2d(_LAST, len(tokenizer.codebook), 1)
        self.pixels = nn.Conv2d(_GATHERED, 2, 1)

    def training_loss(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Cross entropy of the codes of the mask's picture, and a part of that of the pixels."""
        codebook = self.latents.tokenizer.codebook
        assert codebook is not None
        with torch.no_grad():
            latent = self.latents.tokenizer.latent_mean(self.latents.in_range(masks.expand(-1, 3, -1, -1)))
            codes = nearest_codes(latent.float(), codebook)
        stages = self._stages(pixels)
        drawn = self.pixels(self.of_pixels(stages, stages[0].shape[-2:]))
        drawn = F.interpolate(drawn.float(), size=masks.shape[-2:], mode="bilinear")
        by_pixel = F.cross_entropy(drawn, (masks[:, 0] >= 0.5).long())
        return _CODES_WEIGHT * F.cross_entropy(self._code_logits(stages).float(), codes) + _PIXELS_WEIGHT * by_pixel

    def probability(self, pixels: Tensor) -> Tensor:
        """The likeliest codes as the tokenizer draws them: how near to white, N×1×H×W in [0, 1]."""
        codes = self._code_logits(self._stages(pixels)).argmax(dim=1)
        return self.latents.grey(self.latents.tokenizer.decode_codes(codes)).clamp(0, 1)

    def _stages(self, pixels: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.stem(pixels), 3, 2, 1)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def _code_logits(self, stages: list[Tensor]) -> Tensor:
        mixed = self.norm(self.transformer(self.of_codes(stages, torch.Size((self.grid, self.grid)))))
        logits: Tensor = self.codes(self.before_codes(mixed))
        return logits


class _Gather(nn.Module):
    """The stages of a network on one grid."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ConvNormReLU(WIDEN * width, _GATHERED, 1) for width in _WIDTHS)
        self.mix = ConvNormReLU(len(_WIDTHS) * _GATHERED, outputs, 1)

    def forward(self, stages: list[Tensor], grid: torch.Size) -> Tensor:
        """Join them."""
        found = [part(stage) for part, stage in zip(self.parts, stages, strict=True)]
        same = [x if x.shape[-2:] == grid else F.interpolate(x, size=grid, mode="bilinear") for x in found]
        mixed: Tensor = self.mix(torch.cat(same, dim=1))
        return mixed
