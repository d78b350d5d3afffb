"""Test-time flips: an image is segmented as it is, mirrored, upside down and both, and the results are averaged.

Where up and down differ, as in ultrasound, a model has never seen an image upside down: there only mirroring helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import UsageError

FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "both": ((), (2,), (1,), (1, 2)),
    "horizontal": ((), (2,)),
}


def check_flips(averaged: bool, which: str | None) -> None:
    """Refuse unknown flips, and flips without averaging."""
    if which is not None and which not in FLIPS:
        raise UsageError(f"unknown flips '{which}'", where="--flips", fix=f"use {' or '.join(FLIPS)}")
    if which is not None and not averaged:
        raise UsageError("nothing is averaged over flips", where="--flips", fix="add --tta")


def mean_over_flips(infer: Callable[[U8], NDArray[Any]], images: U8, which: str = "both") -> NDArray[np.float32]:
    """Probabilities (0-255) of images N×H×W×3, each map flipped back before the mean; `which` names the flips.

    >>> seen = []
    >>> mean_over_flips(lambda x: seen.append(len(x)) or x[..., 0], np.full((2, 4, 4, 3), 7, np.uint8)).max(), seen
    (np.float32(7.0), [8])
    """
    flips = FLIPS[which]
    maps = infer(np.concatenate([np.flip(images, flip) for flip in flips]))
    parts = np.split(maps, len(flips))
    total = sum(np.flip(part, flip).astype(np.float32) for part, flip in zip(parts, flips, strict=True))
    return np.asarray(total, np.float32) / np.float32(len(flips))
