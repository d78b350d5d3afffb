"""Dice, IoU, HD95, surface Dice, lesions found, PSNR and SSIM: the only definition in the project.

Masks are 2-D arrays; any non-zero pixel is foreground. Two empty masks agree (Dice = IoU = surface Dice = 1, HD95 = 0);
one empty mask against a non-empty one is a miss (Dice = IoU = surface Dice = 0, HD95 = infinity).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32
from gms_rt.errors import UsageError

Mask = NDArray[np.generic]

TOLERANCE = 2.0  # of the surface Dice, in units of the spacing
LESION_IOU = 0.1  # least overlap with which a region counts as a lesion found
_SSIM_SIDE, _SSIM_SIGMA = 11, 1.5  # the window of Wang et al., 2004
_SSIM_MEAN, _SSIM_SPREAD = 0.01**2, 0.03**2  # their constants, for values from 0 to 1


class LesionCounts(NamedTuple):
    """Regions of one image, matched one to one."""

    lesions: int  # regions of the truth
    found: int  # of these, matched by a region of the prediction
    false_alarms: int  # regions of the prediction that match none


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
    percentiles is the result, as in MONAI. medpy takes one percentile of both together, which gives other numbers.

    >>> square = np.zeros((9, 9), np.uint8); square[3:6, 3:6] = 1
    >>> hd95(square, np.roll(square, 1, axis=1))
    1.0
    """
    return hd95_from_distances(surface_distances(a, b, spacing))


def surface_dice(a: Mask, b: Mask, tolerance: float = TOLERANCE, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Normalised surface Dice (NSD): the share of both surfaces' pixels that lie within `tolerance` of the other.

    >>> square = np.zeros((9, 9), np.uint8); square[3:6, 3:6] = 1
    >>> surface_dice(square, np.roll(square, 1, axis=1), 1.0), surface_dice(square, np.roll(square, 1, axis=1), 0.5)
    (1.0, 0.5)
    """
    return surface_dice_from_distances(surface_distances(a, b, spacing), tolerance)


class SurfaceDistances(NamedTuple):
    """Of each surface pixel of either mask, the distance to the other mask's surface; empty where a mask is."""

    to_second: NDArray[np.float64]
    to_first: NDArray[np.float64]
    agree: bool  # both masks are empty, or neither


def surface_distances(a: Mask, b: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> SurfaceDistances:
    """What HD95 and surface Dice are made of, for those who want both."""
    left, right = _pair(a, b)
    if len(spacing) != 2 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise UsageError(f"spacing {spacing} is not two positive numbers", where="surface_distances")
    if not left.any() or not right.any():
        nothing = np.empty(0, np.float64)
        return SurfaceDistances(nothing, nothing, bool(left.any() == right.any()))
    here, there = _surface(left), _surface(right)
    return SurfaceDistances(_distances(here, there, spacing), _distances(there, here, spacing), True)


def hd95_from_distances(distances: SurfaceDistances) -> float:
    """The larger of the two 95th percentiles."""
    if not len(distances.to_second):
        return 0.0 if distances.agree else math.inf
    return float(max(np.percentile(distances.to_second, 95), np.percentile(distances.to_first, 95)))


def surface_dice_from_distances(distances: SurfaceDistances, tolerance: float = TOLERANCE) -> float:
    """The share of all surface pixels within the tolerance."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"tolerance {tolerance} is not a number from 0", where="surface Dice")
    both = np.concatenate([distances.to_second, distances.to_first])
    if not len(both):
        return 1.0 if distances.agree else 0.0
    return float(np.count_nonzero(both <= tolerance) / len(both))


def match_lesions(truth: Mask, found: Mask, least_iou: float = LESION_IOU) -> LesionCounts:
    """Lesions found and false alarms.

    A lesion is a region of the truth whose pixels touch, corners included. Pairs of a lesion and a region of `found`
    that overlap with at least this IoU are matched one to one, the largest IoU first; equal ones in reading order.

    >>> truth = np.array([[1, 1, 0, 0, 1]]); found = np.array([[1, 1, 0, 0, 0]])
    >>> match_lesions(truth, found)
    LesionCounts(lesions=2, found=1, false_alarms=0)
    """
    if not 0 < least_iou <= 1:
        raise UsageError(f"IoU {least_iou} is not above 0 and at most 1", where="lesions")
    left, right = (side.astype(np.uint8) for side in _pair(truth, found))
    lesions, lesion_of = cv2.connectedComponents(left, connectivity=8)
    regions, region_of = cv2.connectedComponents(right, connectivity=8)
    shared = np.bincount((lesion_of * regions + region_of).ravel(), minlength=lesions * regions)
    shared = shared.reshape(lesions, regions)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    overlap = (shared / np.maximum(union, 1))[1:, 1:]
    pairs = np.argwhere(overlap >= least_iou)
    free_lesions, free_regions = set(range(lesions - 1)), set(range(regions - 1))
    for lesion, region in sorted(map(tuple, pairs.tolist()), key=lambda pair: -overlap[pair]):
        if lesion in free_lesions and region in free_regions:
            free_lesions.remove(lesion)
            free_regions.remove(region)
    return LesionCounts(lesions - 1, lesions - 1 - len(free_lesions), len(free_regions))


def psnr(a: F32, b: F32) -> float:
    """Peak signal-to-noise ratio of two images with values from 0 to 1, in dB; infinity where they are equal.

    >>> psnr(np.zeros((2, 2), np.float32), np.full((2, 2), 0.1, np.float32))
    20.0
    """
    left, right = _same_images(a, b)
    error = float(np.mean((left - right) ** 2))
    return math.inf if error == 0 else round(-10 * math.log10(error), 6)


def ssim(a: F32, b: F32) -> float:
    """Structural similarity of two images with values from 0 to 1, the mean over places and channels; 1 is equal.

    That of Wang et al. (2004): a Gaussian window of 11x11 with a standard deviation of 1.5, at the places where it
    lies wholly inside.

    >>> ssim(np.eye(16, dtype=np.float32), np.eye(16, dtype=np.float32))
    1.0
    """
    left, right = _same_images(a, b)
    if min(left.shape[:2]) < _SSIM_SIDE:
        raise UsageError(
            f"an image of {left.shape[1]}x{left.shape[0]} is smaller than the window of 11x11", where="ssim"
        )

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        edge = _SSIM_SIDE // 2
        blurred = cv2.GaussianBlur(values, (_SSIM_SIDE, _SSIM_SIDE), _SSIM_SIGMA)
        return np.asarray(blurred[edge:-edge, edge:-edge], np.float64)

    mean_left, mean_right = smooth(left), smooth(right)
    spread_left = smooth(left * left) - mean_left**2
    spread_right = smooth(right * right) - mean_right**2
    together = smooth(left * right) - mean_left * mean_right
    above = (2 * mean_left * mean_right + _SSIM_MEAN) * (2 * together + _SSIM_SPREAD)
    below = (mean_left**2 + mean_right**2 + _SSIM_MEAN) * (spread_left + spread_right + _SSIM_SPREAD)
    return float(np.mean(above / below))


def _same_images(a: F32, b: F32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if a.shape != b.shape or a.ndim not in (2, 3) or a.size == 0:
        raise UsageError(f"images of the shapes {a.shape} and {b.shape} cannot be compared", where="psnr, ssim")
    return a.astype(np.float64), b.astype(np.float64)


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
