"""Ultrasound-like phantoms: an image and its true lesion mask from a seed, nothing from outside.

`phantom(seed, height, width)` draws tissue layers, lesions and what lies behind them, lets sound weaken with
depth, adds fully developed speckle and compresses it as a scanner does. The same seed, size and library
versions give the same picture. Everything is measured against the shorter side, so a phantom looks alike at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from gms_rt.arrays import F32, U8

SHAPES = ("ellipse", "lobulated", "spiculated")
CONTRASTS = ("hypo", "iso", "hyper")
POSTERIORS = ("none", "shadow", "enhancement")

_DYNAMIC_RANGE_DB = 46.0
_FULL_SCALE = 9.0  # the echo that is drawn white
_GREY_CURVE = 1.7  # scanners darken the middle of the range
# Mean echo of a lesion relative to the tissue around it; the gaps between the ranges keep it visible.
_ECHO = {"hypo": (0.08, 0.28), "iso": (0.33, 0.45), "hyper": (2.2, 3.2)}


@dataclass(frozen=True)
class Lesion:
    """One lesion: what it is, and where in pixels."""

    shape: str
    contrast: str
    posterior: str
    centre: tuple[float, float]  # x, y
    radius: float  # of a circle of about the same area


@dataclass(frozen=True)
class Phantom:
    """A drawn case: `image` uint8 H×W, or H×W×3 with a colour tint; `mask` uint8 H×W of 0 and 255."""

    image: U8
    mask: U8
    lesions: tuple[Lesion, ...]

    @property
    def rgb(self) -> U8:
        """The image with three channels."""
        return self.image if self.image.ndim == 3 else np.repeat(self.image[..., None], 3, axis=2)


def phantom(seed: int, height: int, width: int) -> Phantom:
    """Draw the phantom of this seed at this size (at least 32 pixels a side)."""
    if height < 32 or width < 32:
        raise ValueError(f"a phantom needs at least 32 x 32 pixels, not {width} x {height}")
    rng = np.random.default_rng([0x6D73, seed])
    unit = float(min(height, width))
    lesions = _place_lesions(rng, height, width)
    echo = _tissue(rng, height, width)
    mask = np.zeros((height, width), np.uint8)
    transmitted = np.zeros((height, width), np.float32)
    for lesion in lesions:
        outline = _outline(rng, lesion)
        inside = _fill(outline, height, width)
        mask |= inside
        _add_lesion(rng, echo, inside, lesion, unit)
        transmitted += _posterior(rng, inside, lesion, unit)
    image = _scan(rng, echo, transmitted, unit)
    return Phantom(_tint(rng, image), np.where(mask > 127, 255, 0).astype(np.uint8), tuple(lesions))


def phantom_images(seeds: Iterable[int], height: int, width: int) -> U8:
    """The phantoms of these seeds as one array, uint8 N×H×W×3."""
    return np.stack([phantom(seed, height, width).rgb for seed in seeds])


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: float) -> F32:
    """Gaussian noise of unit spread that changes over about 1/cells of the shorter side."""
    unit = min(height, width) / cells
    rows, columns = max(2, round(height / unit)) + 2, max(2, round(width / unit)) + 2
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _place_lesions(rng: np.random.Generator, height: int, width: int) -> list[Lesion]:
    count = int(rng.choice([0, 1, 2], p=[0.05, 0.80, 0.15]))
    unit = min(height, width)
    placed: list[Lesion] = []
    for _ in range(40):
        if len(placed) == count:
            break
        radius = unit * rng.uniform(0.08, 0.24 if count == 1 else 0.15)
        margin = 1.35 * radius
        x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        apart = all(math.dist((x, y), o.centre) > 1.6 * (radius + o.radius) for o in placed)
        if apart:
            shape = str(rng.choice(SHAPES, p=[0.4, 0.35, 0.25]))
            contrast = str(rng.choice(CONTRASTS, p=[0.6, 0.15, 0.25]))
            posterior = str(rng.choice(POSTERIORS, p=[0.4, 0.35, 0.25]))
            placed.append(Lesion(shape, contrast, posterior, (float(x), float(y)), float(radius)))
    return placed


def _outline(rng: np.random.Generator, lesion: Lesion) -> F32:
    """The lesion's border as points: a stretched circle whose radius is modulated by a few harmonics."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = np.ones_like(angle)
    if lesion.shape == "ellipse":
        harmonics = {2: 0.03, 3: 0.03}
    elif lesion.shape == "lobulated":
        harmonics = {int(k): float(rng.uniform(0.06, 0.11)) for k in rng.choice([3, 4, 5, 6], 2, replace=False)}
    else:
        harmonics = {3: 0.05, int(rng.integers(7, 10)): 0.07, int(rng.integers(10, 14)): 0.05}
    for k, amplitude in harmonics.items():
        radius += amplitude * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    aspect = math.sqrt(rng.uniform(1.0, 1.75))
    tilt = rng.normal(0, 0.35)
    x = lesion.radius * aspect * radius * np.cos(angle)
    y = lesion.radius / aspect * radius * np.sin(angle)
    points = np.stack([x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt)], axis=1)
    return np.asarray(points + np.asarray(lesion.centre), np.float32)


def _fill(outline: F32, height: int, width: int) -> U8:
    filled = np.zeros((height, width), np.uint8)
    cv2.fillPoly(filled, [np.round(outline * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return filled


def _tissue(rng: np.random.Generator, height: int, width: int) -> F32:
    """Mean echo of healthy tissue: wavy layers, each with its own brightness and texture."""
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    wave = 0.035 * _smooth_noise(rng, height, width, 2.5) + 0.02 * _smooth_noise(rng, height, width, 5)
    level = depth + wave * np.clip(depth / 0.2, 0.12, 1)
    borders = np.cumsum([0.035, rng.uniform(0.1, 0.25), rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.2)])
    brightness = [
        2.6,
        rng.uniform(0.55, 0.8),
        rng.uniform(1.0, 1.5),
        rng.uniform(0.6, 0.9),
        rng.uniform(0.8, 1.1),
    ]
    echo = np.full((height, width), brightness[0], np.float32)
    for border, bright in zip(borders, brightness[1:], strict=True):
        step = 1 / (1 + np.exp(-(level - border) / 0.012))
        echo += (bright - echo) * step
        if border > 0.05:  # a thin bright fascia between layers
            echo += 0.9 * np.exp(-(((level - border) / 0.010) ** 2)) * rng.uniform(0.3, 1.0)
    streaks = _smooth_noise(rng, height, max(32, width // 5), 22)
    streaks = np.asarray(cv2.resize(streaks, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    texture = 0.20 * _smooth_noise(rng, height, width, 7) + 0.22 * streaks
    return np.asarray(echo * np.exp(texture), np.float32)


def _add_lesion(rng: np.random.Generator, echo: F32, inside: U8, lesion: Lesion, unit: float) -> None:
    """Replace tissue by the lesion, with a border as soft as the beam is wide."""
    low, high = _ECHO[lesion.contrast]
    height, width = echo.shape
    soft = cv2.GaussianBlur(inside, (0, 0), 0.006 * unit).astype(np.float32) / 255
    texture = np.exp(0.13 * _smooth_noise(rng, height, width, 9))
    around = float(np.mean(echo[inside > 127])) if np.any(inside > 127) else 1.0
    content = np.float32(rng.uniform(low, high) * min(max(around, 0.7), 1.3)) * texture
    rim = 0.35 * soft * (1 - soft) * 4 if lesion.contrast == "iso" else 0.0
    echo += (content - echo) * soft + rim


def _posterior(rng: np.random.Generator, inside: U8, lesion: Lesion, unit: float) -> F32:
    """Log change of the sound behind a lesion: it grows with the path through it and fades slowly below."""
    strength = {"none": 0.0, "shadow": -rng.uniform(0.9, 2.2), "enhancement": rng.uniform(0.5, 0.9)}[lesion.posterior]
    path = np.cumsum(inside.astype(np.float32) / 255, axis=0) / (1.6 * lesion.radius)
    behind = path * (inside < 128)
    behind = np.asarray(cv2.GaussianBlur(behind, (0, 0), sigmaX=0.02 * unit, sigmaY=0.01 * unit), np.float32)
    return np.asarray(strength * behind * (1 - inside.astype(np.float32) / 255), np.float32)


def _scan(rng: np.random.Generator, echo: F32, transmitted: F32, unit: float) -> U8:
    """Speckle, attenuation left over by the gain curve, electronic noise, log compression."""
    height, width = echo.shape
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    gain = np.exp(rng.uniform(-0.9, 0.35) * depth + rng.uniform(-0.35, 0.35) * np.sin(np.pi * depth))
    lateral = 1 + 0.12 * np.cos(np.linspace(-np.pi, np.pi, width, dtype=np.float32))[None, :]
    grain = unit / 224 * rng.uniform(0.75, 1.05)
    amplitude = np.zeros((height, width), np.float32)
    for _ in range(2):  # scanners compound several looks, which fills the deepest holes of the speckle
        fields = rng.standard_normal((2, height, width), dtype=np.float32)
        real, imaginary = (cv2.GaussianBlur(f, (0, 0), sigmaX=1.6 * grain, sigmaY=0.8 * grain) for f in fields)
        amplitude += np.sqrt(real**2 + imaginary**2)
    amplitude /= np.mean(amplitude)
    signal = echo * np.exp(transmitted) * gain * lateral * amplitude
    signal += 0.004 + 0.004 * np.abs(rng.standard_normal((height, width), dtype=np.float32))
    decibel = 20 * np.log10(signal / _FULL_SCALE)
    grey = 255 * np.clip(1 + decibel / _DYNAMIC_RANGE_DB, 0, 1) ** _GREY_CURVE
    return np.asarray(np.round(grey), np.uint8)


def _tint(rng: np.random.Generator, image: U8) -> U8:
    """One phantom in six wears a scanner's colour map: sepia or blue."""
    draw = rng.uniform()
    if draw >= 1 / 6:
        return image
    ramp = np.arange(256, dtype=np.float32) / 255
    strength = 0.12 if draw < 1 / 12 else -0.12
    table = np.stack([ramp ** (1 - strength), ramp, ramp ** (1 + strength)], axis=1)
    return np.round(255 * table).astype(np.uint8)[image]
