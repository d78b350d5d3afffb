"""Frames of cameras and decoders to RGB in the C library, compared with OpenCV byte for byte."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from gms_rt.arrays import U8
from gms_rt.runtime.library import load_library

RGB, BGR, RGBA, BGRA, GRAY, NV12, I420 = range(7)
PLAIN = {
    RGB: (3, None),
    BGR: (3, cv2.COLOR_BGR2RGB),
    RGBA: (4, cv2.COLOR_RGBA2RGB),
    BGRA: (4, cv2.COLOR_BGRA2RGB),
    GRAY: (1, cv2.COLOR_GRAY2RGB),
}


class Frame(ctypes.Structure):
    """gmsrt_frame."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_int32) for name in ("format", "matrix", "range")),
        *((name, ctypes.c_uint32) for name in ("reserved", "width", "height", "x", "y", "columns", "rows")),
        ("planes", ctypes.c_void_p * 3),
        ("strides", ctypes.c_size_t * 3),
    )


@dataclass
class Picture:
    """A frame's planes as arrays whose rows may have a gap between them."""

    format: int
    width: int
    height: int
    planes: list[U8]
    region: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, width, height; zeros: everything
    colours: tuple[int, int] = (0, 0)  # matrix, range

    def rgb(self) -> U8:
        """What the library makes of it."""
        library = load_library()
        frame = Frame()
        assert library.gmsrt_frame_init(ctypes.byref(frame), ctypes.c_size_t(ctypes.sizeof(frame))) == 0
        frame.format, (frame.matrix, frame.range) = self.format, self.colours
        frame.width, frame.height = self.width, self.height
        frame.x, frame.y, frame.columns, frame.rows = self.region
        for i, plane in enumerate(self.planes):
            frame.planes[i], frame.strides[i] = plane.ctypes.data, plane.strides[0]
        out = np.empty((self.region[3] or self.height, self.region[2] or self.width, 3), np.uint8)
        status = library.gmsrt_rgb_from_frame(
            ctypes.byref(frame), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(0)
        )
        assert status == 0, library.gmsrt_last_error()
        return out


def spaced(values: U8, gap: int) -> U8:
    """The same values in rows that are `gap` bytes longer."""
    rows = values.reshape(len(values), -1)
    memory = np.full((len(rows), rows.shape[1] + gap), 0xEE, np.uint8)
    memory[:, : rows.shape[1]] = rows
    return memory[:, : rows.shape[1]]


def planes_of(width: int, height: int, seed: int) -> tuple[U8, U8, U8]:
    random = np.random.default_rng(seed)
    chroma = ((height + 1) // 2, (width + 1) // 2)
    return tuple(random.integers(0, 256, shape, np.uint8) for shape in ((height, width), chroma, chroma))


def opencv_rgb(y: U8, u: U8, v: U8, *, planar: bool) -> U8:
    """OpenCV takes even sizes only: an odd edge is doubled first and cut off afterwards."""
    height, width = y.shape
    even = np.pad(y, ((0, height % 2), (0, width % 2)), mode="edge")
    if planar:
        flat = np.concatenate([even.ravel(), u.ravel(), v.ravel()]).reshape(-1, even.shape[1])
        return cv2.cvtColor(flat, cv2.COLOR_YUV2RGB_I420)[:height, :width]
    pairs = np.stack([u, v], -1).reshape(len(u), -1)
    return cv2.cvtColor(np.vstack([even, pairs]), cv2.COLOR_YUV2RGB_NV12)[:height, :width]


@pytest.mark.parametrize("planar", [False, True], ids=["nv12", "i420"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (2, 2), (641, 363), (17, 8), (8, 17), (1, 1), (1920, 1080)])
def test_yuv_is_opencv_bit_for_bit(width: int, height: int, planar: bool) -> None:
    y, u, v = planes_of(width, height, seed=width)
    expected = opencv_rgb(y, u, v, planar=planar)
    pairs = np.stack([u, v], -1).reshape(len(u), -1)
    for gap in (0, 13):
        chroma = [spaced(u, gap), spaced(v, gap + 1)] if planar else [spaced(pairs, gap)]
        planes = [spaced(y, gap), *chroma]
        picture = Picture(I420 if planar else NV12, width, height, planes)
        assert np.array_equal(picture.rgb(), expected)
        random = np.random.default_rng(1)
        for _ in range(5):  # regions that begin and end anywhere, odd places too
            x, top = int(random.integers(width)), int(random.integers(height))
            columns, rows = int(random.integers(1, width - x + 1)), int(random.integers(1, height - top + 1))
            picture.region = (x, top, columns, rows)
            assert np.array_equal(picture.rgb(), expected[top : top + rows, x : x + columns])


def test_every_colour_is_opencvs() -> None:
    """All 256 of Y with every fifth U and V: 690,000 colours."""
    u, v = (plane.ravel() for plane in np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 5)))
    y = np.tile(np.arange(256, dtype=np.uint8).reshape(2, 128), (len(u), 1))  # a row of blocks for each U and V
    height, width = y.shape
    chroma = [plane.astype(np.uint8)[:, None].repeat(width // 2, 1) for plane in (u, v)]
    planes = [y, *(np.ascontiguousarray(plane) for plane in chroma)]
    got = Picture(I420, width, height, planes).rgb()
    assert np.array_equal(got, opencv_rgb(planes[0], planes[1], planes[2], planar=True))


@pytest.mark.parametrize("kind", PLAIN)
def test_other_formats_are_opencvs(kind: int) -> None:
    channels, code = PLAIN[kind]
    shape = (37, 53) if channels == 1 else (37, 53, channels)
    pixels = np.random.default_rng(kind).integers(0, 256, shape, np.uint8)
    expected = pixels if code is None else cv2.cvtColor(pixels, code)
    picture = Picture(kind, 53, 37, [spaced(pixels, 7)])
    assert np.array_equal(picture.rgb(), expected)
    picture.region = (11, 5, 31, 17)
    assert np.array_equal(picture.rgb(), expected[5:22, 11:42])


@pytest.mark.parametrize(("matrix", "kr", "kb"), [(0, 0.299, 0.114), (1, 0.2126, 0.0722)])
@pytest.mark.parametrize("full", [0, 1])
def test_every_matrix_and_range_follows_its_standard(matrix: int, kr: float, kb: float, full: int) -> None:
    """The formula in double precision: nowhere more than one step away, and the mean is that of rounding."""
    y, u, v = planes_of(128, 96, seed=3)
    got = Picture(I420, 128, 96, [y, u, v], colours=(matrix, full)).rgb().astype(float)
    light = y / 255 if full else np.maximum(y.astype(float) - 16, 0) / 219
    blue, red = ((plane.repeat(2, 0).repeat(2, 1) - 128.0) / (255 if full else 224) for plane in (u, v))
    r, b = light + 2 * (1 - kr) * red, light + 2 * (1 - kb) * blue
    g = light - (2 * (1 - kr) * kr * red + 2 * (1 - kb) * kb * blue) / (1 - kr - kb)
    exact = np.clip(np.stack([r, g, b], -1) * 255, 0, 255)
    assert np.abs(got - exact).max() <= 1 and abs((got - exact).mean()) < 0.05


def test_white_and_black_are_white_and_black() -> None:
    grey = np.full((1, 1), 128, np.uint8)
    for full, ends in ((0, (16, 235)), (1, (0, 255))):
        for matrix in (0, 1):
            for value, wanted in zip(ends, (0, 255), strict=True):
                rgb = Picture(I420, 2, 2, [np.full((2, 2), value, np.uint8), grey, grey], colours=(matrix, full)).rgb()
                assert np.abs(rgb.astype(int) - wanted).max() <= 1  # OpenCV's limited white is 254
