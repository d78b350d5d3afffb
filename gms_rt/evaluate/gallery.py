"""The worst cases of an evaluation as pictures: each plain, and with truth (green) and prediction (yellow)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.scan import resize_image
from gms_rt.scan.encode import encode_picture
from gms_rt.scan.mask import resize_mask

_PANEL = 320


def write_gallery(folder: Path, cases: Sequence[Case], segment: Callable[[U8], U8]) -> None:
    """Draw these cases in their order, each under its rank and Dice; an earlier gallery is replaced."""
    if folder.is_dir():
        for old in folder.glob("*.png"):
            old.unlink()
    for rank, case in enumerate(cases, 1):
        image, truth = read_case(case)
        found = segment(image)
        factor = _PANEL / max(truth.shape)
        height, width = (max(1, round(side * factor)) for side in truth.shape)
        plain = resize_image(image, height, width)
        drawn = draw_contours(plain, truth, found)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in case.name)
        score = metrics.dice(found, truth)
        with atomic_path(folder / f"{rank:02d}-dice{score:.3f}-{safe}.png", durable=False) as part:
            part.write_bytes(encode_picture(".png", np.hstack([plain, drawn])))


def draw_contours(image: U8, truth: U8, found: U8) -> U8:
    """A copy of an RGB image with the outlines of both masks, of whatever size they are."""
    drawn = image.copy()
    height, width = image.shape[:2]
    for mask, colour in ((truth, (0, 255, 0)), (found, (255, 255, 0))):
        lines, _ = cv2.findContours(resize_mask(mask, height, width), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, lines, -1, colour, 1, cv2.LINE_AA)
    return drawn
