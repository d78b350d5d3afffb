"""How decided the model was about a case, as one number. It is not the probability that the mask is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32
from gms_rt.runtime.masks import confidence_of_levels

DEFINITION = (
    "mean distance of the probability from the threshold, where 0 means every pixel sits on the threshold and 1 means "
    "every pixel is fully decided; over the pixels whose probability is at least a fifth of the threshold (foreground "
    "and what could have been), or over all pixels where there is none. It says how decided the model was, not how "
    "probable it is that the mask is right."
)


def confidence(probability: NDArray[Any], threshold: float = 0.5) -> float:
    """The confidence of one probability map (0-255) at network size.

    >>> confidence(np.array([[0, 255]], np.uint8))
    1.0
    """
    if probability.dtype == np.uint8:
        return round(confidence_of_levels(probability, threshold), 4)
    values = probability.astype(np.float32) / np.float32(255)
    concerned = values[values >= threshold / 5]
    return round(float(_margin(concerned if concerned.size else values, threshold).mean(dtype=np.float64)), 4)


def _margin(values: F32, threshold: float) -> F32:
    """How far probabilities are from the threshold, of how far they could be on their side of it."""
    above = (values - threshold) / (1 - threshold)
    return np.asarray(np.where(values >= threshold, above, (threshold - values) / threshold), np.float32)
