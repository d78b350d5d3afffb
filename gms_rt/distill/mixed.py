"""Pictures made of those with a mask, warped, mixed in pairs and changed in tone, for the teacher alone to speak about.

On the pictures that it was trained on a teacher repeats their masks; what it has learned beyond them shows on others. A
small data set has no others, so they are made: far enough from the stored ones for the teacher to have to judge, near
enough for what it says to mean something. Views of a training are made anew in each step and the teacher is not asked
about them; these are made once, and it is.

Each follows from the seed and its number alone, so that a resume, and another student, find what the teacher said.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gms_rt.arrays import F32, U8

_MIXED = 0x6D78
_ROTATE = 30.0  # degrees to either side
_ZOOM, _SHIFT = 1.6, 0.15  # largest factor and its inverse; share of the size
_BEND, _BENDS = 0.036, (0.05, 0.13)  # most that a place moves, and how far apart bends are: shares of the size
_BLENDED, _PATCHED = 0.25, 0.35  # shares of pictures with another one over all of them, or in parts
_PATCHES = (0.09, 0.2)  # how large such parts are: share of the size
_GAMMA, _CONTRAST, _BRIGHTNESS = 0.8, (0.7, 1.35), 0.25
_GRAIN_SHARE, _GRAIN, _BLUR_SHARE, _BLUR = 0.3, 0.2, 0.2, (0.5, 1.5)


@dataclass(frozen=True)
class Mixing:
    """What decides the pictures that are made."""

    each: int  # of every picture
    seed: int
    mirror: bool  # whether half of what they are made of is seen in a mirror


def mixed_picture(images: U8, number: int, mixing: Mixing) -> U8:
    """Picture `number` of those made of N×H×W×3 images."""
    mirror = mixing.mirror
    rng = np.random.default_rng([mixing.seed, _MIXED, number])
    picture = _warped(images[number % len(images)], rng, mirror=mirror)
    kind = rng.random()
    if kind < _BLENDED + _PATCHED:
        other = _warped(images[rng.integers(len(images))], rng, mirror=mirror)
        share = np.float32(rng.uniform(0.15, 0.85)) if kind < _BLENDED else _patches(rng, *picture.shape[:2])
        picture += (other - picture) * share
    return np.clip(np.rint(_toned(picture, rng)), 0, 255).astype(np.uint8)


def _warped(image: U8, rng: np.random.Generator, *, mirror: bool) -> F32:
    """Turned, zoomed, moved and bent."""
    height, width = image.shape[:2]
    angle, factor = np.radians(rng.uniform(-_ROTATE, _ROTATE)), _ZOOM ** rng.uniform(-1, 1)
    sign = rng.choice((-1.0, 1.0)) if mirror else 1.0
    moves, size = rng.uniform(-_SHIFT, _SHIFT, 2), max(height, width)
    bend, apart = rng.uniform(0, _BEND) * size, rng.uniform(*_BENDS)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y - (height - 1) / 2, (x - (width - 1) / 2) * np.float32(sign)
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    to_x = cos * x - sin * y + (width - 1) / 2 + moves[0] * width + bend * _smooth_noise(rng, height, width, apart)
    to_y = sin * x + cos * y + (height - 1) / 2 + moves[1] * height + bend * _smooth_noise(rng, height, width, apart)
    moved = cv2.remap(
        image, to_x.astype(np.float32), to_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(moved, np.float32)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, apart: float) -> F32:
    """Noise of mean 0 and deviation 1, whose hills are this share of the size apart."""
    cells = max(3, round(1 / apart))
    noise = cv2.resize(
        rng.standard_normal((cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)


def _patches(rng: np.random.Generator, height: int, width: int) -> F32:
    """H×W×1 shares of another picture: smooth patches with borders of any sharpness."""
    noise = _smooth_noise(rng, height, width, rng.uniform(*_PATCHES))
    return np.asarray(1 / (1 + np.exp((rng.uniform(-0.6, 1) - noise) * rng.uniform(4, 12))), np.float32)[..., None]


def _toned(picture: F32, rng: np.random.Generator) -> F32:
    """With another gamma, contrast and brightness; some grainy, some blurred."""
    gamma = 2 ** rng.uniform(-_GAMMA, _GAMMA)
    toned = 255 * np.clip(picture / 255, 0, 1) ** np.float32(gamma)
    mean = toned.mean()
    toned = (mean + (toned - mean) * rng.uniform(*_CONTRAST)) * rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS)
    if rng.random() < _GRAIN_SHARE:
        grain = cv2.GaussianBlur(rng.standard_normal(picture.shape[:2]).astype(np.float32), (0, 0), rng.uniform(0.6, 2))
        toned *= 1 + rng.uniform(0, _GRAIN) * (grain / grain.std())[..., None]
    if rng.random() < _BLUR_SHARE:
        toned = cv2.GaussianBlur(toned, (0, 0), rng.uniform(*_BLUR))
    return np.asarray(toned, np.float32)
