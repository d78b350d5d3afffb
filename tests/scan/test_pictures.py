"""Pictures in: every depth and colour, rotation, pages, and hostile bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, TiffImagePlugin

from gms_rt.errors import InputError
from gms_rt.scan import Frame, resize_image, resize_probability, rgb, window
from gms_rt.scan.geometry import orient
from gms_rt.scan.pictures import read_picture

RNG = np.random.default_rng(7)
PICTURE = RNG.integers(0, 256, (30, 44, 3), np.uint8)
PICTURE[:12, :9] = 255  # no symmetry
GREY = PICTURE[..., 0].copy()


def saved(image: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def encoded(ending: str, values: Any) -> bytes:
    done, data = cv2.imencode(ending, values)
    assert done
    return bytes(data.tobytes())


def only(data: bytes) -> Frame:
    reading = read_picture(data)
    frames = list(reading.frames)
    assert len(frames) == 1
    return frames[0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("pixels", [PICTURE, GREY], ids=["rgb", "grey"])
def test_lossless_pictures_keep_their_values(kind: str, pixels: Any) -> None:
    frame = only(saved(pixels, kind))
    assert np.array_equal(frame.image, pixels)
    assert frame.window == "8 bit as stored"


@pytest.mark.parametrize(
    "pixels", [PICTURE, np.dstack([PICTURE, np.full((30, 44), 255, np.uint8)])], ids=["rgb", "rgba"]
)
def test_webp_keeps_its_values_and_is_checked_before_it_is_decoded(pixels: Any) -> None:
    data = saved(pixels, "WEBP", lossless=True, exact=True)
    assert np.array_equal(only(data).image, PICTURE)
    for part in (data[:40], data[:-3]):
        with pytest.raises(InputError, match="truncated WebP"):
            read_picture(part)
    lossy = saved(pixels, "WEBP", quality=90)
    assert only(lossy).image.shape == PICTURE.shape
    for whole in (data, lossy):
        with pytest.raises(InputError, match="44×30"):
            read_picture(whole, max_pixels=30 * 44 - 1)


def test_a_jpeg_reads_as_pillow_reads_it() -> None:
    data = saved(PICTURE, "JPEG", quality=95)
    assert np.array_equal(only(data).image, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(PICTURE, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(only(data).image, expected)


@given(st.integers(1, 8))
def test_orientation_keeps_every_pixel(orientation: int) -> None:
    turned = orient(PICTURE, orientation)
    assert sorted(turned.reshape(-1)) == sorted(PICTURE.reshape(-1))
    assert turned.shape[:2] in ((30, 44), (44, 30))


def test_palette_and_one_bit() -> None:
    palette = Image.fromarray(PICTURE).quantize(16)
    assert np.array_equal(only(saved(palette, "PNG")).image, np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY).convert("1")
    assert np.array_equal(only(saved(bits, "PNG")).image, np.asarray(bits.convert("L")))


def test_transparency_is_seen_over_black() -> None:
    rgba = np.dstack([PICTURE, np.full(GREY.shape, 255, np.uint8)])
    assert np.array_equal(only(saved(rgba, "PNG")).image, PICTURE)
    rgba[..., 3] = 0
    frame = only(saved(rgba, "PNG"))
    assert not frame.image.any()
    assert "over black" in frame.window


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_windowed_by_percentiles(ending: str, channels: int) -> None:
    ramp = np.linspace(1000, 5000, 64 * 48).reshape(48, 64).astype(np.uint16)
    values = ramp if channels == 1 else np.dstack([ramp // 4, ramp // 2, ramp])  # as OpenCV stores it: blue first
    frame = only(encoded(ending, values))
    low, high = window.percentiles(values)
    expected = window.to_8bit(values if channels == 1 else values[..., ::-1], low, high)
    assert np.array_equal(frame.image, expected)
    assert frame.window.startswith("percentiles 0.5-99.5: ")
    assert frame.image.min() == 0
    assert frame.image.max() == 255


def test_white_is_zero_in_a_tiff_of_16_bits() -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 500
    data = saved(Image.fromarray(values), "TIFF")
    white_is_zero = data.replace(struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert white_is_zero != data
    assert np.array_equal(only(white_is_zero).image, 255 - only(data).image)


def test_pages_are_frames_and_reduced_copies_are_not() -> None:
    pages = [Image.fromarray(np.full((8, 9), value, np.uint8)) for value in (10, 20, 30)]
    reading = read_picture(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert reading.multi
    assert [(f.number, int(f.image[0, 0])) for f in reading.frames] == [(1, 10), (2, 20), (3, 30)]
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
        for page, subfile in ((pages[0], 0), (pages[1], 1), (pages[2], 0)):
            page.save(writer, "TIFF", tiffinfo={254: subfile})
            writer.newFrame()
    assert [int(f.image[0, 0]) for f in read_picture(buffer.getvalue()).frames] == [10, 30]


def test_nan_in_a_float_picture_is_background_and_said() -> None:
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    whole = only(saved(Image.fromarray(values), "TIFF"))
    assert whole.image.max() == 255
    values[9, 9], values[9, 8] = np.nan, np.inf
    frame = only(saved(Image.fromarray(values), "TIFF"))
    assert frame.window.endswith(", 2 NaN or infinite as background")
    assert frame.image[9, 8:].tolist() == [0, 0]
    assert frame.image[9, 7] == 255
    values[:] = np.nan
    with pytest.raises(InputError, match="only pixels that are NaN"):
        only(saved(Image.fromarray(values), "TIFF"))


def bomb(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("size", "words"), [
    ((60000, 60000), "3600 megapixels, the limit is 100"),
    ((2**31 - 1, 1), "megapixels"),
    ((70000, 2), "longest side"),
    ((0, 5), "damaged|impossible"),
])  # fmt: skip
def test_absurd_dimensions_are_refused_unread(size: tuple[int, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_picture(bomb(*size))


def test_the_limit_is_an_option() -> None:
    data = saved(PICTURE, "PNG")
    assert len(list(read_picture(data, max_pixels=30 * 44).frames)) == 1
    with pytest.raises(InputError, match="max-pixels"):
        read_picture(data, max_pixels=30 * 44 - 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_cut_picture_is_refused(kind: str, share: float) -> None:
    data = saved(PICTURE, kind)
    with pytest.raises(InputError):
        only(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG", b"II*\0\xff\xff\xff\xff", b"BM" + bytes(60), bytes(999)])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        only(data)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]), data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_a_picture_or_an_input_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(saved(PICTURE, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        frames = list(read_picture(bytes(whole), max_pixels=1_000_000).frames)
    except InputError as error:
        assert error.what
    else:
        assert all(frame.image.dtype == np.uint8 and frame.image.ndim in (2, 3) for frame in frames)


def test_a_window_without_width_is_black_and_rare_values_stay_visible() -> None:
    assert not window.by_percentiles(np.full((5, 5), 700, np.uint16))[0].any()
    values = np.zeros((100, 100), np.uint16)
    values[0, 0] = 9
    assert window.by_percentiles(values)[0][0, 0] == 255


def test_padding_does_not_decide_the_window() -> None:
    values = np.linspace(0, 100, 1000)
    padded = np.concatenate([values, np.full(5000, -2000.0)])
    assert window.percentiles(padded, -2000) == window.percentiles(values)


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_resizing_reaches_any_size_and_keeps_the_range(height: int, width: int) -> None:
    assert resize_image(PICTURE, height, width).shape == (height, width, 3)
    restored = resize_probability(GREY, height, width)
    assert restored.shape == (height, width)
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_rgb_of_every_shape() -> None:
    assert rgb(GREY).shape == rgb(GREY[..., None]).shape == rgb(PICTURE).shape == (30, 44, 3)
