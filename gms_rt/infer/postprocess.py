"""Clean-up of a mask, each step on request: largest region, holes, small regions.

Pixels that touch at a corner are of one region.
"""

from __future__ import annotations

import cv2
import numpy as np

from gms_rt.arrays import U8


def clean_mask(mask: U8, *, largest: bool = False, fill: bool = False, min_area: int = 0) -> U8:
    """A mask of 0 and 255 after the steps asked for: holes are filled first, then regions are chosen."""
    if fill:
        mask = fill_holes(mask)
    if largest or min_area > 1:
        mask = keep_regions(mask, largest=largest, min_area=min_area)
    return mask


def fill_holes(mask: U8) -> U8:
    """Background that does not reach the image's edge becomes foreground.

    >>> ring = np.full((3, 3), 255, np.uint8); ring[1, 1] = 0
    >>> int(fill_holes(ring)[1, 1])
    255
    """
    padded = np.pad((mask == 0).astype(np.uint8), 1, constant_values=1)
    # Background is joined over edges only, because foreground is joined over corners.
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    return np.where(labels[1:-1, 1:-1] == labels[0, 0], 0, 255).astype(np.uint8)


def keep_regions(mask: U8, *, largest: bool, min_area: int) -> U8:
    """Regions of at least `min_area` pixels, or only the largest of them (of equals, the first from the top)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 1:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = areas >= min_area
    if largest:
        keep &= np.arange(len(areas)) == int(np.argmax(areas))
    table = np.concatenate([[0], np.where(keep, 255, 0)]).astype(np.uint8)
    return np.asarray(table[labels], np.uint8)
