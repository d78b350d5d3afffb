"""Random views of a batch on the student's device: one warp and one change of colours per picture, in few kernels.

What is drawn follows from the seed and the step alone. Picture, ground truth and the teacher's soft mask go through
the same warp, so that the teacher is asked about plain pictures only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gms_rt.arrays import F64
from gms_rt.distill.recipe import DistillRecipe

_VIEWS = 0x6469
# Grey as in `augment`, and a basis of colours around it (YIQ), in which a hue is an angle.
_GREY = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True)
class DrawnViews:
    """The choices of a batch."""

    warp: Tensor  # N×2×3: from places in the view to places in the picture, both from -1 to 1
    mix: Tensor  # N×3×3: of the colours
    contrast: Tensor  # N: of the distance to the picture's mean
    plain: Tensor  # N: 1 for a view that is not moved


def draw_views(recipe: DistillRecipe, step: int, count: int) -> DrawnViews:
    """The views of this step."""
    rng = np.random.default_rng([recipe.seed, _VIEWS, step])
    # Every number is drawn, used or not, so that one setting does not shift the others' randomness.
    even, share = rng.uniform(-1, 1, (8, count)), rng.random((6, count))
    quarters = rng.integers(0, 4, count)
    plain = share[0] < (recipe.plain_share if recipe.taught and recipe.latent_weight else 0.0)
    still = plain | (share[1] >= recipe.move_share)
    turned = ~plain & (share[2] < recipe.quarter_turns)
    angle = np.where(still, 0.0, np.radians(recipe.rotate) * even[0]) + np.where(turned, quarters * math.pi / 2, 0.0)
    factor = np.where(still, 1.0, recipe.zoom ** even[1])
    across = ~plain & (share[3] < recipe.flip_share) & (recipe.flip != "none")
    along = ~plain & (share[4] < recipe.flip_share) & (recipe.flip == "both")
    warp = np.zeros((count, 2, 3))
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    signs = np.where(across, -1.0, 1.0), np.where(along, -1.0, 1.0)
    warp[:, 0, 0], warp[:, 0, 1] = cos * signs[0], -sin * signs[1]
    warp[:, 1, 0], warp[:, 1, 1] = sin * signs[0], cos * signs[1]
    warp[:, :, 2] = np.where(still[:, None], 0.0, 2 * recipe.shift * even[2:4].T)
    coloured = share[5] < recipe.colour_share
    mix = _mix(recipe, np.where(coloured, even[4:8], 0.0))
    contrast = np.where(coloured, 1 + recipe.contrast * even[7], 1.0)
    tensors = (torch.from_numpy(part.astype(np.float32)) for part in (warp, mix, contrast, plain))
    return DrawnViews(*tensors)


def _mix(recipe: DistillRecipe, drawn: F64) -> F64:
    """Brightness, saturation and hue as one matrix per picture."""
    hue, saturation, value = 2 * math.pi * recipe.hue * drawn[0], recipe.saturation * drawn[1], recipe.value * drawn[2]
    turn = np.zeros((drawn.shape[1], 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = (1 + saturation) * np.cos(hue)
    turn[:, 2, 1] = (1 + saturation) * np.sin(hue)
    turn[:, 1, 2] = -turn[:, 2, 1]
    return np.asarray((1 + value)[:, None, None] * (_RGB @ turn @ _YIQ), np.float64)


def warp_pictures(stack: Tensor, warp: Tensor) -> Tensor:
    """N×C×H×W pictures through their warps; the outside of a picture is its mirror image."""
    grid = F.affine_grid(warp, list(stack.shape), align_corners=False)
    return F.grid_sample(stack, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def change_colours(pictures: Tensor, mix: Tensor, contrast: Tensor) -> Tensor:
    """N×3×H×W pictures of 0 to 1 in other colours."""
    mean = pictures.mean(dim=(1, 2, 3))
    flat = pictures.flatten(2)
    # mix·(mean + contrast·(x - mean)), as one product and one offset
    offset = mix.sum(dim=2) * ((1 - contrast) * mean)[:, None]
    changed = torch.baddbmm(offset[:, :, None], mix * contrast[:, None, None], flat)
    return changed.clamp_(0, 1).view_as(pictures)
