"""What an arithmetic does to the masks, and which blocks do so much of it that they are returned in any case.

Damage is not Dice: Dice counts pixels that cross the threshold, on few images a matter of luck. It is the squared
difference of the probabilities relative to the masks' size (the loss that a soft Dice is one minus of), which adds up
over blocks whose errors know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.precision.blocks import PrecisionBlock

# Blocks with more than this many times the average damage by time saved are returned in any case, up to a share of what
# INT8 saves altogether.
FREE_DENSITY, FREE_SHARE = 1.0, 0.1


def soft_dice_loss(probabilities: U8, reference: U8) -> NDArray[np.float64]:
    """The squared difference of each image's probabilities, relative to the sum of both squared.

    >>> soft_dice_loss(np.full((1, 2, 2), 255, np.uint8), np.array([[[255, 255], [0, 0]]], np.uint8)).round(4).tolist()
    [0.3333]
    """
    a, b = (levels.reshape(len(levels), -1).astype(np.float64) / 255 for levels in (probabilities, reference))
    # What fills a hundredth of the image is no mask: the least that a difference is relative to.
    size = np.maximum((a * a).sum(1) + (b * b).sum(1), 0.01 * a.shape[1])
    return np.asarray(((a - b) ** 2).sum(1) / size)


def returned_in_any_case(order: Sequence[PrecisionBlock], damage: Mapping[str, float]) -> int:
    """How many blocks from the front do so much damage by time saved that they are returned in any case."""
    saves, total = sum(unit.saves for unit in order), sum(damage.values())
    density = FREE_DENSITY * total / max(saves, 1)
    count, returned = 0, 0.0
    for unit in order[:-1]:
        returned += unit.saves
        if damage[unit.name] <= density * unit.saves or returned > FREE_SHARE * saves:
            break
        count += 1
    return count
