"""The C library's measures, confidence and PNG against OpenCV, NumPy and Pillow."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import InputError, UsageError
from gms_rt.runtime.masks import confidence_of_levels, measures_of_mask, png_of_mask

SIZES = [(1, 1), (1, 2), (2, 1), (3, 3), (5, 300), (40, 7), (64, 64), (3, 515), (2, 32767), (2, 32768), (3, 40000)]


def masks(seed: int) -> list[U8]:
    """Blobs of several sizes, noise, labels, full and empty."""
    dice = np.random.default_rng(seed)
    made = []
    for height, width in [*SIZES, *(tuple(map(int, dice.integers(1, 90, 2))) for _ in range(60))]:
        noise = dice.integers(0, 256, (height, width)).astype(np.uint8)
        smooth = cv2.GaussianBlur(noise, (0, 0), float(dice.uniform(0.5, 6)))
        made += [(image > np.quantile(image, dice.uniform(0, 1))) * np.uint8(255) for image in (noise, smooth)]
        made += [noise % 4, noise * 0, noise | 1]
    return [np.asarray(mask, np.uint8) for mask in made]


def test_measures_are_those_of_opencv() -> None:
    for mask in masks(1):
        found = measures_of_mask(mask)
        count, _ = cv2.connectedComponents(mask, connectivity=8)
        y, x = np.nonzero(mask)
        assert (found.area, found.regions, found.box) == (len(x), count - 1, tuple(cv2.boundingRect(mask)))
        assert found.centre == ((x.sum() / len(x), y.sum() / len(y)) if len(x) else (0, 0))


def test_png_has_the_pixels_for_every_reader() -> None:
    for mask in masks(2):
        png = png_of_mask(mask)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), mask)
        with Image.open(io.BytesIO(png)) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), mask)


def test_png_is_a_strict_zlib_stream() -> None:
    mask = masks(3)[-4]
    png = png_of_mask(mask)
    size = int.from_bytes(png[33:37], "big")
    stream = zlib.decompressobj()
    rows = np.frombuffer(stream.decompress(png[41 : 41 + size]), np.uint8).reshape(len(mask), -1)
    assert stream.eof
    assert not stream.unused_data
    np.testing.assert_array_equal(rows[:, 1:], mask)


def test_png_is_the_same_everywhere() -> None:
    """Two files with the same pixels have the same hash, whatever machine or version wrote them."""
    y, x = np.mgrid[:300, :400]
    mask = ((((x - 190) / 120) ** 2 + ((y - 140) / 90) ** 2 < 1 + 0.2 * np.sin(x / 9)) * 255).astype(np.uint8)
    png = png_of_mask(mask)
    assert png == png_of_mask(np.asfortranarray(mask))
    assert sha256_bytes(png) == "00fd55be538a95c315a04f5466fd0ee300598af1cca1fba9f50d02cf1ca3e2b9"


def test_png_of_a_mask_is_small() -> None:
    y, x = np.mgrid[:768, :1024]
    mask = (((x - 500) ** 2 + (y - 380) ** 2 < 200**2) * 255).astype(np.uint8)
    done, by_opencv = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    assert len(png_of_mask(mask)) < len(by_opencv) * 1.1
    assert len(png_of_mask(mask * np.uint8(0))) < 2500


def test_confidence_is_the_mean_margin() -> None:
    dice = np.random.default_rng(4)
    for _ in range(200):
        threshold = float(dice.uniform(0.05, 0.95))
        levels = dice.integers(0, int(dice.integers(1, 257)), tuple(dice.integers(1, 60, 2))).astype(np.uint8)
        values = levels / 255
        margin = np.where(values >= threshold, (values - threshold) / (1 - threshold), (threshold - values) / threshold)
        concerned = margin[values >= threshold / 5]
        expected = (concerned if concerned.size else margin).mean()
        assert confidence_of_levels(levels, threshold) == pytest.approx(expected, abs=1e-5)


def test_what_is_no_mask_is_refused() -> None:
    for wrong in (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32)):
        with pytest.raises(UsageError, match="is not uint8, H×W"):
            png_of_mask(wrong)
        with pytest.raises(UsageError, match="is not uint8, H×W"):
            measures_of_mask(wrong)
    with pytest.raises(UsageError, match="each side must be 1"):
        measures_of_mask(np.zeros((0, 4), np.uint8))
    with pytest.raises(UsageError, match="threshold 1 is not between 0 and 1"):
        confidence_of_levels(np.zeros((2, 2), np.uint8), 1)


def test_a_mask_that_no_png_takes_is_refused_before_it_is_read() -> None:
    wide = np.broadcast_to(np.uint8(0), (1, 1 << 30))  # one byte in memory
    with pytest.raises(InputError, match="too large for a PNG"):
        png_of_mask(wide)
