"""Pictures in and out: one reading, one resize for training and inference, whole-or-nothing writes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def resize_image(image: U8, height: int, width: int) -> U8:
    """Resize an image to network size: area average when shrinking, bilinear otherwise."""
    if image.shape[:2] == (height, width):
        return image
    shrinking = image.shape[0] >= height and image.shape[1] >= width
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def resize_probability(probability: U8, height: int, width: int) -> NDArray[np.float32]:
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
