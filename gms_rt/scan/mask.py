"""Probabilities, levels and masks: the one place that says where foreground begins.

A network's output has levels of 0 to 255, steps of 1/255 of a probability; 128 is the first at or above one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, U8
from gms_rt.errors import UsageError
from gms_rt.scan.geometry import resize_image

FOREGROUND = 128  # the lowest level of a probability map (0-255), or of a drawn mask, that is foreground


def mask_from_probability(probability: F32, threshold: float = 0.5) -> U8:
    """A mask of 0 and 255 from probabilities of 0 to 1.

    >>> mask_from_probability(np.array([[0.2, 0.5]], np.float32)).tolist()
    [[0, 255]]
    """
    if not 0 < threshold < 1:
        raise UsageError(f"threshold {threshold} is not between 0 and 1")
    return (probability >= np.float32(threshold)).view(np.uint8) * np.uint8(255)


def mask_from_levels(levels: NDArray[Any]) -> U8:
    """A mask of 0 and 255 from levels of 0 to 255: a probability map at network size, or a mask that was resized.

    >>> mask_from_levels(np.array([[127, 128]], np.uint8)).tolist()
    [[0, 255]]
    """
    return (levels >= FOREGROUND).astype(np.uint8) * np.uint8(255)


def levels_from_probability(probability: F32) -> U8:
    """Levels of 0 to 255 from probabilities of 0 to 1, rounded.

    >>> levels_from_probability(np.array([[0, 0.5, 1]], np.float32)).tolist()
    [[0, 128, 255]]
    """
    return np.asarray(np.rint(probability * 255), np.uint8)


def resize_mask(mask: U8, height: int, width: int) -> U8:
    """A mask of 0 and 255 at another size: a pixel that is foreground by half or more stays foreground."""
    return mask_from_levels(resize_image(mask, height, width))
