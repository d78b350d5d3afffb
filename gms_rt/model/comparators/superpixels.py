"""Superpixels within a graph: simple linear iterative clustering (SLIC), and their borders drawn into the picture.

Every pixel belongs to one of the nine centres around its cell of a grid, the one that is nearest in colour (CIELAB) and
place; centres move to the mean of their pixels. There is no search for stray parts of a superpixel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CELLS = 10  # along a side: 100 superpixels
_COMPACTNESS = 10.0  # how much place counts against colour
_STEPS = 5
_FAR = 1e4  # where there is no centre
# sRGB to CIE XYZ over its white point D65.
_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)


def draw_superpixel_borders(pixels: Tensor) -> Tensor:
    """N×3×H×W pixels in [0, 1], square, with what lies at the border of two superpixels in yellow."""
    size = pixels.shape[-1]
    side = -(-size // _CELLS)
    over = side * _CELLS - size
    whole = F.pad(pixels, (0, over, 0, over), mode="replicate")
    features = torch.cat([_lab(whole) / _COMPACTNESS, _places(whole, side)], dim=1)
    centres = F.avg_pool2d(features, side)
    for _ in range(_STEPS):
        centres = _moved(features, centres, _chosen(features, centres, side), side)
    labels = _labels(_chosen(features, centres, side), side)[..., :size, :size]
    yellow = torch.tensor([1.0, 1.0, 0.0]).to(pixels).view(1, 3, 1, 1)
    border = _border(labels)
    return border * yellow + (1 - border) * pixels


def _lab(pixels: Tensor) -> Tensor:
    """CIELAB of sRGB."""
    linear = torch.where(pixels > 0.04045, ((pixels + 0.055) / 1.055).clamp(min=1e-6) ** 2.4, pixels / 12.92)
    rows = torch.tensor(_XYZ).to(pixels).view(1, 3, 3, 1, 1)
    xyz = (linear[:, None] * rows).sum(dim=2)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).chunk(3, dim=1)
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _places(pixels: Tensor, side: int) -> Tensor:
    """Row and column of each pixel, in cells."""
    steps = torch.arange(_CELLS * side).to(pixels) / side
    both = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
    return both[None] + torch.zeros_like(pixels[:, :2])


def _around(cells: Tensor) -> Tensor:
    """N×C×g×g to N×9×C×g×g: for each cell what stands in the nine around it, row by row."""
    padded = F.pad(cells, (1, 1, 1, 1), value=_FAR)
    rows = torch.stack([padded[:, :, start : start + _CELLS] for start in range(3)], dim=1)
    every = torch.stack([rows[..., start : start + _CELLS] for start in range(3)], dim=2)
    return every.flatten(1, 2)


def _chosen(features: Tensor, centres: Tensor, side: int) -> Tensor:
    """N×9×H×W, one where a pixel belongs to that centre around its cell."""
    count, depth, high, wide = features.shape
    near = _around(centres).reshape(count * 9, depth, _CELLS, _CELLS)
    near = F.interpolate(near, scale_factor=float(side)).reshape(count, 9, depth, high, wide)
    nearest = (features[:, None] - near).square().sum(dim=2).argmin(dim=1, keepdim=True)
    return (nearest == torch.arange(9, device=features.device).view(1, 9, 1, 1)).to(features.dtype)


def _moved(features: Tensor, centres: Tensor, chosen: Tensor, side: int) -> Tensor:
    """Each centre at the mean of its pixels."""
    count, depth, high, wide = features.shape
    parts = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    owned = (chosen[:, :, None] * parts[:, None]).reshape(count * 9, depth + 1, high, wide)
    owned = F.avg_pool2d(owned, side).reshape(count, 3, 3, depth + 1, _CELLS, _CELLS)
    # What a cell gives to the centre in the row before it arrives there from the row behind.
    owned = F.pad(owned, (1, 1, 1, 1))
    rows = torch.stack([owned[:, number, ..., 2 - number : 2 - number + _CELLS, :] for number in range(3)]).sum(dim=0)
    sums = torch.stack([rows[:, number, ..., 2 - number : 2 - number + _CELLS] for number in range(3)]).sum(dim=0)
    share = sums[:, depth:]
    return torch.where(share > 0, sums[:, :depth] / share.clamp(min=1e-6), centres)


def _labels(chosen: Tensor, side: int) -> Tensor:
    """N×1×H×W: the number of each pixel's superpixel."""
    cells = torch.arange(_CELLS, device=chosen.device).repeat_interleave(side).to(chosen)
    own = cells[:, None] * _CELLS + cells[None, :]
    away = torch.tensor([row * _CELLS + column for row in (-1, 0, 1) for column in (-1, 0, 1)]).to(chosen)
    return own + (chosen * away.view(1, 9, 1, 1)).sum(dim=1, keepdim=True)


def _border(labels: Tensor) -> Tensor:
    """One where a pixel's label differs from that of the pixel beside, above or below it."""
    down = (labels[..., 1:, :] != labels[..., :-1, :]).to(labels.dtype)
    right = (labels[..., 1:] != labels[..., :-1]).to(labels.dtype)
    sides = [F.pad(down, (0, 0, 1, 0)), F.pad(down, (0, 0, 0, 1)), F.pad(right, (1, 0)), F.pad(right, (0, 1))]
    return torch.stack(sides).amax(dim=0)
