"""One random view of an image and its mask: flip, rotation, zoom and shift in one warp, then colour.

The same generator state gives the same view. Each view has its own seed, so that order and threads do not matter.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.scan.mask import mask_from_levels
from gms_rt.train.recipe import TrainingRecipe


def augment(image: U8, mask: U8, recipe: TrainingRecipe, rng: np.random.Generator) -> tuple[U8, U8]:
    """A random view of the same size; the outside of a picture is its mirror image."""
    # Every number is drawn, used or not, so that one setting does not shift the others' randomness.
    turn, zoom, dx, dy = rng.uniform(-1, 1, 4)
    across, along = rng.random(2) < 0.5
    colour = rng.uniform(-1, 1, 4)
    flips = (recipe.flip != "none" and across, recipe.flip == "both" and along)
    moved = any((recipe.rotate, recipe.shift, recipe.zoom > 1, *flips))
    if moved:
        matrix = _matrix(image.shape[1], image.shape[0], recipe, (turn, zoom, dx, dy), flips)
        image, mask = _warp(image, matrix), mask_from_levels(_warp(mask, matrix))
    return _shift_colours(image, recipe, colour), mask


def _matrix(
    width: int,
    height: int,
    recipe: TrainingRecipe,
    drawn: tuple[float, float, float, float],
    flips: tuple[bool, bool],
) -> NDArray[np.float64]:
    turn, zoom, dx, dy = drawn
    angle = math.radians(recipe.rotate) * turn
    scale = recipe.zoom**zoom
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flips[0] else 1.0, -1.0 if flips[1] else 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - linear @ centre + np.array([dx * width, dy * height]) * recipe.shift
    return np.hstack([linear, offset[:, None]])


def _warp(picture: U8, matrix: NDArray[np.float64]) -> U8:
    size = (picture.shape[1], picture.shape[0])
    warped = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8)


def _shift_colours(image: U8, recipe: TrainingRecipe, drawn: NDArray[np.float64]) -> U8:
    if not any((recipe.hue, recipe.saturation, recipe.value, recipe.contrast)):
        return image
    hue, saturation, value, contrast = (float(number) for number in drawn)
    pixels = image.astype(np.float32) / 255
    if recipe.contrast:
        mean = float(pixels.mean())
        pixels = np.clip(mean + (pixels - mean) * (1 + recipe.contrast * contrast), 0, 1)
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] = (hsv[..., 0] + 360 * recipe.hue * hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * (1 + recipe.saturation * saturation), 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * (1 + recipe.value * value), 0, 1)
    return np.round(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)) * 255).astype(np.uint8)
