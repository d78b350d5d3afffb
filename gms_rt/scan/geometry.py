"""Sizes and axes: one resize for training and inference, grey to RGB, the eight orientations of EXIF."""

from __future__ import annotations

import platform
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, U8

# OpenCV's wheels for Arm (seen in 4.10 to 5.0) hand a bilinear resize of bytes to carotene and KleidiCV: a one-channel
# image that grows in width and shrinks in height gets zeros in its first columns, three channels are up to 8 levels off
# or crash (opencv/opencv#29794). The bit-exact form goes neither way and is at most 2 levels from x86-64's.
BILINEAR = cv2.INTER_LINEAR if platform.machine() in ("x86_64", "AMD64") else cv2.INTER_LINEAR_EXACT
TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange rows and columns


def resize_image(image: U8, height: int, width: int) -> U8:
    """Resize an image: area average when it shrinks, bilinear otherwise. The same for training and inference."""
    if image.shape[:2] == (height, width):
        return image
    shrinking = image.shape[0] >= height and image.shape[1] >= width
    method = cv2.INTER_AREA if shrinking else BILINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def resize_probability(probability: NDArray[Any], height: int, width: int) -> F32:
    """A probability map (0-255) at source size as float32 in 0-1: bilinear, before any threshold."""
    values = probability.astype(np.float32) / np.float32(255)
    if probability.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def rgb(image: U8) -> U8:
    """Grey H×W or H×W×1, or H×W×3, as contiguous RGB."""
    if image.ndim == 2:
        image = image[..., None]
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)


def orient(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels turned the way EXIF orientation 1-8 says they are to be seen (unknown numbers change nothing).

    >>> orient(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]
    """
    if orientation in TURNED:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values
