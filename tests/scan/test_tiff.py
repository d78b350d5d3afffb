"""TIFF: every depth, order, layout and meaning of samples gives the stored values, or is refused in words."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiff_files import Layout, one_page, page_entries, tiff_file

from gms_rt.errors import InputError
from gms_rt.scan import Frame, window
from gms_rt.scan.geometry import orient
from gms_rt.scan.pictures import read_picture
from gms_rt.scan.tiff import full_pages

RNG = np.random.default_rng(11)
SHADES = np.clip(RNG.integers(-9, 10, (37, 53, 4)).cumsum(axis=1) + 120, 20, 235)


def shades(kind: str, count: int) -> Any:
    """Values of this type that use much of its range."""
    dtype = np.dtype(kind)
    values = SHADES[..., :count] if count > 1 else SHADES[..., 0]
    if dtype.kind == "f":
        return (values / 255 - 0.2).astype(dtype)
    step = int(np.iinfo(dtype).max) // 255
    return ((values - 128) * step).astype(dtype) if dtype.kind == "i" else values.astype(dtype) * dtype.type(step)


def frames(data: bytes) -> list[Frame]:
    return list(read_picture(data).frames)


def only(data: bytes) -> Frame:
    (frame,) = frames(data)
    return frame


def shown(values: Any) -> Any:
    return values if values.dtype == np.uint8 else window.by_percentiles(values)[0]


LAYOUTS = [
    Layout(),
    Layout(order=">"),
    Layout(big=True),
    Layout(big=True, order=">"),
    Layout(tile=16),
    Layout(deflate=True),
    Layout(deflate=True, tile=16, order=">"),
    Layout(deflate=True, predictor=2),
    Layout(deflate=True, predictor=2, order=">", tile=16),
]


@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_stored_values_come_out_of_every_layout(kind: str, count: int, planar: bool, layout: Layout) -> None:
    values = shades(kind, count)
    data = one_page(values, dataclasses.replace(layout, planar=planar))
    assert np.array_equal(only(data).image, shown(values))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_predictor_of_floats_is_undone(kind: str, order: str) -> None:
    values = shades(kind, 3)
    assert np.array_equal(only(one_page(values, Layout(order, deflate=True, predictor=3))).image, shown(values))


def test_colour_of_16_bits_written_by_opencv_with_lzw() -> None:
    values = shades("u2", 3)
    done, data = cv2.imencode(".tif", values[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert done
    assert np.array_equal(only(data.tobytes()).image, shown(values))


def test_signed_grey_with_lzw_in_the_other_byte_order() -> None:
    # Pillow reads these without turning the bytes.
    values = shades("i2", 1)
    assert np.array_equal(only(one_page(values, Layout(">", deflate=True))).image, shown(values))


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_depth_is_turned(kind: str, orientation: int) -> None:
    values = shades(kind, 3)
    for planar in (False, True):
        turned = only(one_page(values, Layout(planar=planar), t274=orientation)).image
        assert np.array_equal(turned, orient(shown(values), orientation))


@pytest.mark.parametrize("planar", [False, True])
def test_transparency_of_16_bits(planar: bool) -> None:
    values = shades("u2", 4)
    unassociated = only(one_page(values, Layout(planar=planar), t338=2))
    seen = np.rint(values[..., :3] * (values[..., 3:] / 65535)).astype(np.uint16)
    assert np.array_equal(unassociated.image, shown(seen))
    assert unassociated.window.endswith("transparency over black")
    # Associated alpha is multiplied in already; samples of no stated meaning are left out.
    for meaning in (1, 0):
        assert np.array_equal(only(one_page(values, Layout(planar=planar), t338=meaning)).image, shown(values[..., :3]))


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4"])
def test_white_is_zero_at_every_depth(kind: str) -> None:
    values = shades(kind, 1)
    black = only(one_page(values)).image.astype(int)
    assert np.abs(only(one_page(values, t262=0)).image - (255 - black)).max() <= 1


def test_cmyk_of_16_bits_as_pillow_shows_8() -> None:
    deep, plain = shades("u2", 4), shades("u1", 4)
    frame = only(one_page(deep, t262=5))
    colours = np.asarray(Image.frombytes("CMYK", (53, 37), plain.tobytes()).convert("RGB"))
    low, high = window.percentiles(colours)
    assert np.abs(frame.image.astype(int) - window.to_8bit(colours, low, high)).max() <= 3
    assert frame.window.endswith("from CMYK")


def test_samples_of_twelve_bits() -> None:
    values = shades("u2", 1) >> 4
    wide = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(37, 53, 2), axis=2)[..., 4:].reshape(37, -1)
    entries, _ = page_entries(values, Layout(rows=37), t258=12)
    packed = np.packbits(wide, axis=1)
    assert np.array_equal(only(tiff_file((entries, [packed.tobytes()]))).image, shown(values))


def test_pages_of_every_kind_in_one_file() -> None:
    first, small, plain = shades("u2", 3), shades("u2", 3)[::2, ::2], shades("u1", 3)
    layout = Layout(planar=True)
    data = tiff_file(
        page_entries(first, layout),
        page_entries(small, Layout(), t254=1),
        page_entries(plain, Layout()),
        page_entries(plain[..., 0], Layout(), t254=4),
        page_entries(first[::-1], Layout()),
    )
    found = frames(data)
    assert [frame.number for frame in found] == [1, 2, 3]
    for frame, expected in zip(found, (first, plain, first[::-1]), strict=True):
        assert np.array_equal(frame.image, shown(expected))


@pytest.mark.parametrize(("tags", "words"), [
    ({"t259": 50002}, "compressed as JPEG XL, which is not supported"),
    ({"t262": 8}, "16-bit TIFF in CIELAB colour, which is not supported"),
    ({"t339": [6] * 3}, "complex numbers"),
    ({"t258": [5, 6, 5]}, r"\[5, 6\] bits, which is not supported"),
    ({"t262": 1, "t338": [1, 0]}, "3 samples per pixel that are not red, green and blue"),
    ({"t32997": 3}, "volume in one TIFF page"),
    ({"t317": 7, "t259": 8}, "predictor 7"),
    ({"t278": 0}, None),
])  # fmt: skip
def test_what_is_not_read_is_refused_in_words(tags: dict[str, Any], words: str | None) -> None:
    data = one_page(shades("u2", 3), Layout(deflate=tags.get("t259") == 8, rows=37), **tags)
    if words is None:
        assert np.array_equal(only(data).image, shown(shades("u2", 3)))
    else:
        with pytest.raises(InputError, match=words):
            only(data)


def test_three_samples_without_a_meaning_are_taken_as_colours_and_said_so() -> None:
    values = shades("u2", 3)
    frame = only(one_page(values, t262=1))
    assert np.array_equal(frame.image, shown(values))
    assert "taken as red, green and blue" in frame.window


@pytest.mark.parametrize("layout", [Layout(), Layout(deflate=True), Layout(planar=True, tile=16)], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_of_16_bits_is_refused(layout: Layout, share: float) -> None:
    data = one_page(shades("u2", 3), layout)
    with pytest.raises(InputError):
        only(data[: int(len(data) * share)])
    if layout.deflate:
        entries, parts = page_entries(shades("u2", 3), layout)
        parts[-1] = parts[-1][: int(len(parts[-1]) * share)]
        with pytest.raises(InputError, match="damaged TIFF"):
            only(tiff_file((entries, parts), layout=layout))


def test_directories_in_a_circle_end() -> None:
    data = bytearray(one_page(shades("u1", 1)))
    data[-4:] = data[4:8]
    assert len(full_pages(bytes(data))) == 1


def test_a_picture_above_pillows_own_limit_is_decoded_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    values = shades("u1", 3)
    for data in (one_page(values), one_page(values, Layout(deflate=True)), one_page(shades("u2", 3))):
        assert only(data).image.shape == values.shape
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "WEBP", lossless=True)
    assert np.array_equal(only(buffer.getvalue()).image, values)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(InputError, match="max-pixels"):
        list(read_picture(one_page(values), max_pixels=37 * 53 - 1).frames)


@settings(max_examples=200, deadline=None)
@given(
    layout=st.sampled_from([Layout(), Layout(deflate=True), Layout(big=True, tile=16), Layout(planar=True)]),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_a_picture_or_an_input_error(layout: Layout, data: st.DataObject) -> None:
    whole = bytearray(one_page(shades("u2", 3), layout))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(whole) - 1) | st.integers(max(0, len(whole) - 300), len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    try:
        found = list(read_picture(bytes(whole), max_pixels=1_000_000).frames)
    except InputError as error:
        assert error.what
    else:
        assert all(frame.image.dtype == np.uint8 and frame.image.ndim in (2, 3) for frame in found)
