"""Large JPEG files decoded at a part of their size: by OpenCV or Pillow, turned or not, near the whole picture."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gms_rt.arrays import U8
from gms_rt.errors import InputError
from gms_rt.scan.frame import Frame
from gms_rt.scan.pictures import read_picture
from gms_rt.scan.segmenter import prepare_image

_TURNED = Image.Exif()
_TURNED[0x0112] = 6
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole colours": {"subsampling": 0},
    "progressive": {"progressive": True},
    "turned": {"exif": _TURNED.tobytes()},
    "grey": {"mode": "L"},
    "four inks": {"mode": "CMYK"},
}


def picture(height: int, width: int) -> U8:
    """Smooth colours with grain."""
    dice = np.random.default_rng(height)
    smooth = cv2.resize(
        dice.integers(0, 256, (9, 12, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(smooth + dice.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(image: U8, mode: str = "RGB", **settings: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, "JPEG", quality=92, **settings)
    return stream.getvalue()


def only_frame(data: bytes, least_side: int) -> Frame:
    (frame,) = read_picture(data, least_side=least_side).frames
    return frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("least_side", "divisor"), [(0, 1), (301, 1), (300, 2), (151, 2), (150, 4), (75, 8), (1, 8)])
def test_no_side_gets_shorter_than_wanted(kind: str, least_side: int, divisor: int) -> None:
    frame = only_frame(jpeg(picture(601, 803), **KINDS[kind]), least_side)
    size = (803, 601) if kind == "turned" else (601, 803)
    assert frame.size == size
    assert frame.image.shape[:2] == tuple(-(-side // divisor) for side in size)
    assert frame.image.ndim == (2 if kind == "grey" else 3)
    assert frame.image.flags.c_contiguous
    assert frame.window == "8 bit as stored" + (f", decoded at 1/{divisor}" if divisor > 1 else "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_picture_is_nearly_the_same(kind: str) -> None:
    data = jpeg(picture(900, 1200), **KINDS[kind])
    whole, reduced = (prepare_image(only_frame(data, least).image, 96, 96) for least in (0, 288))
    apart = np.abs(whole.astype(int) - reduced)
    assert apart.max() <= 4
    assert apart.mean() < 0.5
    assert apart.any()  # not the whole picture once more


@pytest.mark.parametrize("kind", ["plain", "progressive", "turned"])
def test_a_file_that_is_cut_short_is_refused_all_the_same(kind: str) -> None:
    data = jpeg(picture(601, 803), **KINDS[kind])
    for end in (len(data) // 2, len(data) - 2000):
        with pytest.raises(InputError, match="damaged JPEG"):
            only_frame(data[:end], 75)


def test_what_is_no_jpeg_is_decoded_whole() -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(601, 803)).save(stream, "PNG")
    frame = only_frame(stream.getvalue(), 75)
    assert frame.image.shape[:2] == frame.size == (601, 803)
