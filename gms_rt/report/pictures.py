"""Pictures of a case for a report: the scan, its masks drawn over it, and where two masks differ."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.report.model import Fact, Picture
from gms_rt.scan.encode import encode_picture

Mask = NDArray[np.generic]
Colour = tuple[int, int, int]

REFERENCE: Colour = (255, 190, 60)
ENGINE: Colour = (45, 212, 191)
# Blue and orange stay apart for every kind of colour blindness.
MISSED: Colour = (77, 141, 255)
EXTRA: Colour = (255, 128, 64)
_QUALITY = 90


def photo(label: str, image: U8) -> Picture:
    """A scan or an overlay as a picture (grey or RGB)."""
    data = encode_picture(".jpg", scan.rgb(image), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return Picture(label, f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")


def drawn_over(image: U8, mask: Mask, colour: Colour = ENGINE, *, fill: float = 0.25) -> U8:
    """A mask drawn over its scan: outline and a light fill."""
    result = scan.rgb(image).astype(np.float32)
    inside = mask != 0
    result[inside] = result[inside] * (1 - fill) + np.array(colour, np.float32) * fill
    canvas = np.clip(result, 0, 255).astype(np.uint8)
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(image.shape[:2]) / 160))
    cv2.drawContours(canvas, outlines, -1, colour, thickness, cv2.LINE_AA)
    return canvas


def difference(image: U8, mask: Mask, reference: Mask) -> U8:
    """Where two masks differ, over the darkened scan: `MISSED` is in the reference only, `EXTRA` in the mask only."""
    grey = scan.rgb(image).mean(axis=2, keepdims=True)
    canvas = np.repeat(grey * 0.45, 3, axis=2).astype(np.uint8)
    ours, theirs = mask != 0, reference != 0
    both = ours & theirs
    canvas[both] = np.clip(canvas[both].astype(np.int16) + 46, 0, 255).astype(np.uint8)
    canvas[theirs & ~ours] = MISSED
    canvas[ours & ~theirs] = EXTRA
    return canvas


def difference_legend() -> tuple[Fact, ...]:
    """What the colours of `difference` mean: labels with CSS colours."""
    return (Fact("in the reference only", _css(MISSED)), Fact("in the engine only", _css(EXTRA)))


def overlay_legend() -> tuple[Fact, ...]:
    """What the colours of overlays mean."""
    return (Fact("reference", _css(REFERENCE)), Fact("engine", _css(ENGINE)))


def _css(colour: Colour) -> str:
    return f"rgb({colour[0]} {colour[1]} {colour[2]})"
