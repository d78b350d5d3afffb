"""One random view of an image and its mask: quarter turns, flips, one warp (rotation, zoom, shift), colours.

The same generator state gives the same view. Each view has its own seed, so that order and threads do not matter.
`draw_choice` decides, `apply_choice` does it; `augment` is both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, U8
from gms_rt.scan.mask import mask_from_levels
from gms_rt.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class ViewChoice:
    """What is done to one picture."""

    quarters: int = 0  # quarter turns, counter-clockwise
    across: bool = False  # left and right change places
    along: bool = False  # top and bottom change places
    moved: bool = False  # whether the four that follow are applied
    angle: float = 0.0  # degrees
    factor: float = 1.0  # of the size
    shift: tuple[float, float] = (0.0, 0.0)  # share of width and height
    coloured: bool = False  # whether those that follow are applied
    hue: float = 0.0  # share of the circle
    saturation: float = 0.0  # relative change
    value: float = 0.0  # relative change
    contrast: float = 0.0  # relative change
    order: tuple[int, ...] = (0, 1, 2, 3)  # of value, contrast, saturation and hue, where they are drawn as jitter


def augment(image: U8, mask: U8, recipe: TrainingRecipe, rng: np.random.Generator) -> tuple[U8, U8]:
    """A random view; a quarter turn swaps the sides of a picture that is not square."""
    return apply_choice(image, mask, recipe, draw_choice(recipe, rng))


def draw_choice(recipe: TrainingRecipe, rng: np.random.Generator) -> ViewChoice:
    """The choices of one view."""
    # Every number is drawn, used or not, so that one setting does not shift the others' randomness; and what later
    # versions added is drawn last, so that the views of earlier ones stay.
    turn, zoom, dx, dy = (float(number) for number in rng.uniform(-1, 1, 4))
    across, along = rng.random(2) < recipe.flip_share
    hue, saturation, value, contrast = (float(number) for number in rng.uniform(-1, 1, 4))
    turned, moved, coloured = rng.random(3) < (recipe.quarter_turns, recipe.move_share, recipe.colour_share)
    quarters, order = int(rng.integers(4)), tuple(int(number) for number in rng.permutation(4))
    return ViewChoice(
        quarters=quarters if turned else 0,
        across=bool(across) and recipe.flip != "none",
        along=bool(along) and recipe.flip == "both",
        moved=bool(moved) and any((recipe.rotate, recipe.shift, recipe.zoom > 1, recipe.scale)),
        angle=recipe.rotate * turn,
        factor=recipe.zoom**zoom * (1 + recipe.scale * zoom),
        shift=(recipe.shift * dx, recipe.shift * dy),
        coloured=bool(coloured) and any((recipe.hue, recipe.saturation, recipe.value, recipe.contrast)),
        hue=recipe.hue * hue,
        saturation=recipe.saturation * saturation,
        value=recipe.value * value,
        contrast=recipe.contrast * contrast,
        order=order,
    )


def apply_choice(image: U8, mask: U8, recipe: TrainingRecipe, choice: ViewChoice) -> tuple[U8, U8]:
    """The view that these choices make; the outside of a picture is its mirror image."""
    if choice.quarters:
        image, mask = (np.ascontiguousarray(np.rot90(picture, choice.quarters)) for picture in (image, mask))
    if recipe.augment_at == "native":  # colours come first where the size does not make them dear: the official order
        image = _change_colours(image, recipe, choice)
    if choice.moved:
        matrix = _matrix(image.shape[1], image.shape[0], choice)
        image = _warp(image, matrix, cv2.INTER_LINEAR)
        nearest = recipe.mask_resize == "nearest"
        mask = mask_from_levels(_warp(mask, matrix, cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR))
    elif choice.across or choice.along:
        image, mask = (_flip(picture, choice) for picture in (image, mask))
    return (image if recipe.augment_at == "native" else _change_colours(image, recipe, choice)), mask


def _matrix(width: int, height: int, choice: ViewChoice) -> NDArray[np.float64]:
    angle, scale, (dx, dy) = math.radians(choice.angle), choice.factor, choice.shift
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    linear = linear @ np.diag([-1.0 if choice.across else 1.0, -1.0 if choice.along else 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - linear @ centre + np.array([dx * width, dy * height])
    return np.hstack([linear, offset[:, None]])


def _flip(picture: U8, choice: ViewChoice) -> U8:
    return np.ascontiguousarray(picture[:: -1 if choice.along else 1, :: -1 if choice.across else 1])


def _warp(picture: U8, matrix: NDArray[np.float64], method: int) -> U8:
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=method, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _change_colours(image: U8, recipe: TrainingRecipe, choice: ViewChoice) -> U8:
    if not choice.coloured:
        return image
    pixels = image.astype(np.float32) / np.float32(255)
    changed = _jitter(pixels, choice) if recipe.colours == "jitter" else _change_hsv(pixels, recipe, choice)
    return np.round(changed * 255).astype(np.uint8)


def _change_hsv(pixels: F32, recipe: TrainingRecipe, choice: ViewChoice) -> F32:
    """Contrast about the mean of all values, then hue, saturation and value."""
    if recipe.contrast:
        mean = float(pixels.mean())
        pixels = np.clip(mean + (pixels - mean) * (1 + choice.contrast), 0, 1)
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] = (hsv[..., 0] + 360 * choice.hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * (1 + choice.saturation), 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * (1 + choice.value), 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def _jitter(pixels: F32, choice: ViewChoice) -> F32:
    """Brightness, contrast, saturation and hue in the drawn order, each clipped, as torchvision's ColorJitter."""
    changes: tuple[Callable[[F32], F32], ...] = (
        lambda now: now * np.float32(1 + choice.value),
        lambda now: _blend(now, float(_grey(now).mean()), choice.contrast),
        lambda now: _blend(now, _grey(now)[..., None], choice.saturation),
        lambda now: _turn_hue(now, choice.hue),
    )
    for number in choice.order:
        pixels = np.clip(changes[number](pixels), 0, 1)
    return pixels


def _grey(pixels: F32) -> F32:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def _blend(pixels: F32, centre: F32 | float, change: float) -> F32:
    """Distances to the centre, larger or smaller by this share."""
    return np.asarray(centre + (pixels - centre) * (1 + change), np.float32)


def _turn_hue(pixels: F32, share: float) -> F32:
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] = (hsv[..., 0] + 360 * share) % 360
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
