"""MedSegDiff-V2: diffusion of the mask itself, told of the picture by a UNet of its own in two ways.

The UNet on the picture finds a rough mask (the anchor). Its last features, smoothed and never below themselves, weigh
the first ones of the network that takes the noise out; no gradient goes back by that way. Its deepest features meet
that network's in a transformer that compares frequencies. Trained are the distance of the noise and the rough mask.

A picture is segmented from noise in a few steps without chance (DDIM), evenly spaced, the first and the last of all
steps left out; each estimate of the mask is kept in [0, 1], and the last one is the result. The noise is drawn once and
kept with the weights, so that a picture has one mask and the exported graph has a fixed number of steps.

An interpretation in parts. The two UNets, their widths and the published 129.4 million parameters are those of the
authors' public code, which has neither the weighing nor the transformer; those are from the paper, which does not state
their sizes. What is this project's own reading is said in docs/comparators.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.condition_unet import ConditionUNet, Told
from gms_rt.model.comparators.denoiser import Denoiser, DenoiserShape
from gms_rt.model.comparators.diffusion import NoiseSchedule, stored_noise
from gms_rt.model.comparators.spectrum_former import SpectrumFormer
from gms_rt.model.mask_loss import mask_loss

_CONDITION_WIDTHS, _CONDITION_DROPOUT = (32, 64, 128, 256, 480, 480), 0.5
_WIDTH, _MULTIPLIERS, _BLOCKS = 128, (1, 1, 2, 2, 4, 4), 2
_ATTENTIVE, _HEADS = (4,), 1
_FORMER_WIDTH, _FORMER_BLOCKS = 256, 1
_SMOOTHED, _SPREAD = 5, 1.0  # side and spread of the kernel that smooths the anchor, before it is trained
_STEPS, _FIRST, _LAST = 1000, 0.0001, 0.02
_TAKEN = 4  # steps that segment


class MedSegDiffV2(nn.Module):
    """The network for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.condition = ConditionUNet(_CONDITION_WIDTHS, _CONDITION_DROPOUT)
        self.anchor = UncertainAttention(_CONDITION_WIDTHS[0])
        shape = DenoiserShape(4, 1, _WIDTH, _MULTIPLIERS, _BLOCKS, _HEADS, 0.0, _ATTENTIVE, "shift", "convolutions")
        self.denoiser = Denoiser(shape)
        deepest = _WIDTH * _MULTIPLIERS[-1]
        grid = size // 2 ** (len(_MULTIPLIERS) - 1)
        self.former = SpectrumFormer(
            deepest, _CONDITION_WIDTHS[-2], _FORMER_WIDTH, _FORMER_BLOCKS, grid, self.denoiser.deep
        )
        self.schedule = NoiseSchedule(_STEPS, _FIRST, _LAST)
        self.register_buffer("noise", stored_noise(1, 1, size, size))

    def training_loss(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The distance of the noise at steps drawn for each picture, and that of the rough mask."""
        step = torch.randint(_STEPS, masks.shape[:1]).to(masks.device)
        noise = torch.randn(masks.shape).to(masks.device)
        told = self.condition(pixels)
        found = self._noise_in(self.schedule.noisy(masks, noise, step), pixels, told, step).float()
        return F.mse_loss(found, noise) + mask_loss(told.logits.float(), masks).mean()

    def probability(self, pixels: Tensor) -> Tensor:
        """The mask, N×1×H×W in [0, 1]."""
        told = self.condition(pixels)
        noisy = clean = self.get_buffer("noise").expand(len(pixels), -1, -1, -1)
        taken = steps_taken(_TAKEN, _STEPS)
        for number, following in zip(taken, (*taken[1:], None), strict=True):
            step = torch.full((1,), number, device=pixels.device)  # one for all pictures
            noise = self._noise_in(noisy, pixels, told, step)
            clean = self.schedule.clean(noisy, noise, step).clamp(0, 1)
            if following is not None:
                rest = self.schedule.noise_beside(noisy, clean, step)
                noisy = self.schedule.noisy(clean, rest, torch.full_like(step, following))
        return clean

    def _noise_in(self, noisy: Tensor, pixels: Tensor, told: Told, step: Tensor) -> Tensor:
        learned = self.denoiser.told_of(step)
        first = self.anchor(self.denoiser.first(torch.cat([pixels, noisy], dim=1)), told.decoded.detach())
        x, skips = self.denoiser.down(first, learned)
        x = self.former(self.denoiser.middle(x, learned), told.deepest, learned)
        return self.denoiser.up(self.denoiser.behind(x, learned), skips, learned)


class UncertainAttention(nn.Module):
    """Weighs features by where an anchor's are strong, or close to where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(channels, channels, _SMOOTHED, padding=_SMOOTHED // 2, groups=channels, bias=False)
        self.weigh = nn.Conv2d(channels, 1, 1)
        with torch.no_grad():
            self.smooth.weight.copy_(_gaussian())

    def forward(self, x: Tensor, anchor: Tensor) -> Tensor:
        """The features, up to twice themselves."""
        weight = torch.sigmoid(self.weigh(torch.maximum(self.smooth(anchor), anchor)))
        return x + weight * x


def steps_taken(count: int, steps: int) -> tuple[int, ...]:
    """So many of these steps from the last to the first, evenly, without the ends."""
    return tuple(steps * place // (count + 1) for place in range(count, 0, -1))


def _gaussian() -> Tensor:
    line = torch.exp(-((torch.arange(_SMOOTHED) - _SMOOTHED // 2) ** 2) / (2 * _SPREAD**2))
    table = line[:, None] * line
    return table / table.sum()
