"""Dice, IoU and HD95: the only definition in the project.

Masks are 2-D arrays; any non-zero pixel is foreground. Two empty masks agree (Dice = IoU = 1, HD95 = 0); one empty
mask against a non-empty one is a miss (Dice = IoU = 0, HD95 = infinity).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import UsageError

Mask = NDArray[np.generic]


def dice(a: Mask, b: Mask) -> float:
    """Overlap of two masks: 2|a∩b| / (|a|+|b|).

    >>> dice(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]))
    0.6666666666666666
    """
    left, right = _pair(a, b)
    size = int(np.count_nonzero(left)) + int(np.count_nonzero(right))
    return 1.0 if size == 0 else 2.0 * int(np.count_nonzero(left & right)) / size


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks.

    >>> iou(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]))
    0.5
    """
    left, right = _pair(a, b)
    union = int(np.count_nonzero(left | right))
    return 1.0 if union == 0 else int(np.count_nonzero(left & right)) / union


def differing_pixels(a: Mask, b: Mask) -> int:
    """How many pixels differ.

    >>> differing_pixels(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]))
    1
    """
    left, right = _pair(a, b)
    return int(np.count_nonzero(left ^ right))


def hd95(a: Mask, b: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Symmetric 95th-percentile Hausdorff distance between surfaces, in units of `spacing` (row, column).

    For each surface the distances of its pixels to the other surface are taken; the larger of the two 95th
    percentiles is the result.

    >>> square = np.zeros((9, 9), np.uint8); square[3:6, 3:6] = 1
    >>> hd95(square, np.roll(square, 1, axis=1))
    1.0
    """
    left, right = _pair(a, b)
    if len(spacing) != 2 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise UsageError(f"spacing {spacing} is not two positive numbers", where="hd95")
    if not left.any() or not right.any():
        return 0.0 if left.any() == right.any() else math.inf
    here, there = _surface(left), _surface(right)
    to_there, to_here = _distances(here, there, spacing), _distances(there, here, spacing)
    return float(max(np.percentile(to_there, 95), np.percentile(to_here, 95)))


def _pair(a: Mask, b: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if a.ndim != 2 or a.shape != b.shape:
        raise UsageError(f"masks of shapes {a.shape} and {b.shape} cannot be compared", where="metrics")
    return a != 0, b != 0


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # A pixel is on the surface when one of its four neighbours, or the image's edge, is outside.
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    surface: NDArray[np.bool_] = mask & ~inside
    return surface


def _distances(here: NDArray[np.bool_], there: NDArray[np.bool_], spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Distance of each surface pixel in `here` to the nearest one in `there`."""
    if spacing[0] == spacing[1]:
        field = cv2.distanceTransform((~there).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(field[here], np.float64) * spacing[0]
    # OpenCV's transform has square pixels only; surfaces are thin, so the pairs are few enough to be exact.
    scale = np.array(spacing)
    targets, points = np.argwhere(there) * scale, np.argwhere(here) * scale
    step = max(1, 4_000_000 // len(targets))
    nearest = [
        np.sqrt(((points[i : i + step, None] - targets[None]) ** 2).sum(-1).min(1)) for i in range(0, len(points), step)
    ]
    return np.concatenate(nearest)
