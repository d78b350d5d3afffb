"""From a probability to a mask: the one place that says where foreground begins.

The network's output has steps of 1/255; 128 of 255 is the first at or above one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import UsageError

FOREGROUND = 128  # the lowest level of a probability map (0-255), or of a drawn mask, that is foreground


def mask_from_probability(probability: NDArray[np.float32], threshold: float = 0.5) -> U8:
    """A mask of 0 and 255 from probabilities of 0 to 1.

    >>> mask_from_probability(np.array([[0.2, 0.5]], np.float32)).tolist()
    [[0, 255]]
    """
    if not 0 < threshold < 1:
        raise UsageError(f"threshold {threshold} is not between 0 and 1")
    return (probability >= np.float32(threshold)).astype(np.uint8) * np.uint8(255)


def mask_from_levels(levels: NDArray[Any]) -> U8:
    """A mask of 0 and 255 from levels of 0 to 255: a probability map at network size, or a mask that was resized.

    >>> mask_from_levels(np.array([[127, 128]], np.uint8)).tolist()
    [[0, 255]]
    """
    return (levels >= FOREGROUND).astype(np.uint8) * np.uint8(255)
