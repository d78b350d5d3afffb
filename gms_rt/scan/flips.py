"""Test-time flips: an image is segmented as it is, mirrored and turned, and the results are averaged.

Where up and down differ, as in ultrasound, a model has never seen an image upside down: there only mirroring helps.
Where no direction differs, as in tissue under a microscope, quarter turns are as good as flips. They exchange height
and width, so the model's input must be square.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import UsageError


class View(NamedTuple):
    """One way to look at an image: rows and columns exchanged or not, then these axes reversed."""

    transposed: bool
    reversed: tuple[int, ...]


_MIRRORED = (View(False, ()), View(False, (2,)))
_FLIPPED = (*_MIRRORED, View(False, (1,)), View(False, (1, 2)))
FLIPS: dict[str, tuple[View, ...]] = {
    "both": _FLIPPED,
    "horizontal": _MIRRORED,
    "quarter-turns": (*_FLIPPED, *(View(True, view.reversed) for view in _FLIPPED)),
}


def check_flips(averaged: bool, which: str | None) -> None:
    """Refuse unknown flips, and flips without averaging."""
    if which is not None:
        _check_known(which)
    if which is not None and not averaged:
        raise UsageError("nothing is averaged over flips", where="--flips", fix="add --tta")


def infer_over_flips(
    infer: Callable[[U8], NDArray[Any]], which: str, height: int, width: int
) -> Callable[[U8], NDArray[np.float32]]:
    """A model of this input size, averaged over the flips of this name; one that cannot take them is refused."""
    check_views(which, height, width)
    return partial(mean_over_flips, infer, which=which)


def check_views(which: str, height: int, width: int) -> None:
    """Refuse flips that are not known, or that an input of this size cannot take."""
    _check_known(which)
    if height != width and any(view.transposed for view in FLIPS[which]):
        raise UsageError(
            f"quarter turns need a square input, this model takes {height}x{width} (height x width)",
            where=f"--flips {which}",
            fix="use --flips both or horizontal, or export the model at a square size",
        )


def _check_known(which: str) -> None:
    if which not in FLIPS:
        raise UsageError(f"unknown flips '{which}'", where="--flips", fix=f"use {', '.join(FLIPS)}")


def mean_over_flips(infer: Callable[[U8], NDArray[Any]], images: U8, which: str = "both") -> NDArray[np.float32]:
    """Probabilities (0-255) of images N×H×W×3, each map turned back before the mean; `which` names the flips.

    >>> seen = []
    >>> mean_over_flips(lambda x: seen.append(len(x)) or x[..., 0], np.full((2, 4, 4, 3), 7, np.uint8)).max(), seen
    (np.float32(7.0), [8])
    """
    views = FLIPS[which]
    maps = infer(np.concatenate([_seen(images, view) for view in views]))
    total = sum(
        _turned_back(part, view).astype(np.float32)
        for part, view in zip(np.split(maps, len(views)), views, strict=True)
    )
    return np.asarray(total, np.float32) / np.float32(len(views))


def _seen(images: U8, view: View) -> U8:
    return np.flip(images.swapaxes(1, 2) if view.transposed else images, view.reversed)


def _turned_back(maps: NDArray[Any], view: View) -> NDArray[Any]:
    plain = np.flip(maps, view.reversed)
    return plain.swapaxes(1, 2) if view.transposed else plain
