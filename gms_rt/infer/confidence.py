"""How decided the model was about a case, as one number. It is not the probability that the mask is right."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, F64

DEFINITION = (
    "mean distance of the probability from the threshold, where 0 means every pixel sits on the threshold and 1 means "
    "every pixel is fully decided; over the pixels whose probability is at least a fifth of the threshold (foreground "
    "and what could have been), or over all pixels where there is none. It says how decided the model was, not how "
    "probable it is that the mask is right."
)

_LEVELS = np.arange(256).astype(np.float32) / np.float32(255)


def confidence(probability: NDArray[Any], threshold: float = 0.5) -> float:
    """The confidence of one probability map (0-255) at network size.

    >>> confidence(np.array([[0, 255]], np.uint8))
    1.0
    """
    if probability.dtype == np.uint8 and probability.size < 1 << 24:  # OpenCV counts in float32
        counts = (
            cv2.calcHist([np.asarray(probability, np.uint8)], [0], None, [256], [0, 256]).ravel().astype(np.float64)
        )
        chosen = counts * _concerned(threshold)
        counts = chosen if chosen.any() else counts
        return round(float(counts @ _margins(threshold) / counts.sum()), 4)
    values = probability.astype(np.float32) / np.float32(255)
    concerned = values[values >= threshold / 5]
    return round(float(_margin(concerned if concerned.size else values, threshold).mean(dtype=np.float64)), 4)


def _margin(values: F32, threshold: float) -> F32:
    """How far probabilities are from the threshold, of how far they could be on their side of it."""
    above = (values - threshold) / (1 - threshold)
    return np.asarray(np.where(values >= threshold, above, (threshold - values) / threshold), np.float32)


@functools.lru_cache(maxsize=8)
def _margins(threshold: float) -> F64:
    """The margin of each level."""
    return _margin(_LEVELS, threshold).astype(np.float64)


@functools.lru_cache(maxsize=8)
def _concerned(threshold: float) -> F64:
    """1 for each level that is foreground or could have been, else 0."""
    return (threshold / 5 <= _LEVELS).astype(np.float64)
