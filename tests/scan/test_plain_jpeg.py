"""Ordinary JPEG files take the short way, and it leads to the same pixels; all others, and damage, take Pillow's."""

from __future__ import annotations

import io
import platform
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gms_rt.errors import InputError
from gms_rt.scan import pictures
from gms_rt.scan.pictures import read_picture
from gms_rt.scan.plain_jpeg import image_from_plain_jpeg, plain_size


def picture(height: int, width: int, colours: int) -> Any:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, colours), np.uint8)
    smooth = np.kron(coarse, np.ones((9, 9, 1), np.uint8))[:height, :width]
    noisy = np.clip(smooth.astype(int) + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)
    return noisy[..., 0] if colours == 1 else noisy


def jpeg(image: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(150, 200), (1, 1), (7, 33), (64, 17), (225, 301)])
@pytest.mark.parametrize(
    ("colours", "options"),
    [
        (1, {}),
        (3, {"subsampling": "4:4:4"}),
        (3, {"subsampling": "4:2:2", "quality": 60}),
        (3, {"subsampling": "4:2:0", "quality": 98}),
        (3, {"subsampling": "4:2:0", "restart_marker_blocks": 2, "optimize": True}),
        (3, {"quality": 10, "comment": b"a \xff\xd8 comment"}),
        (3, {"icc_profile": b"\xff\xd9" * 90}),
    ],
)
def test_the_short_way_leads_to_the_same_pixels(size: tuple[int, int], colours: int, options: dict[str, Any]) -> None:
    data = jpeg(picture(*size, colours), **options)
    assert plain_size(data) == (size[1], size[0], colours)
    taken = image_from_plain_jpeg(data, colours)
    assert taken is not None
    assert taken.flags.c_contiguous
    expected, note = pictures._picture(data, "JPEG", 1 << 30)
    assert note == ""
    assert np.array_equal(taken, expected)
    (frame,) = read_picture(data).frames
    assert np.array_equal(frame.image, expected)
    assert frame.window == "8 bit as stored"


def special() -> dict[str, bytes]:
    image = picture(40, 50, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    whole = jpeg(image)
    start = whole.index(b"\xff\xc0")
    return {
        "turned": jpeg(image, exif=exif),
        "progressive": jpeg(image, progressive=True),
        "cmyk": cmyk.getvalue(),
        "4:1:1": whole[: start + 11] + b"\x41" + whole[start + 12 :],
        "rgb": jpeg(image, keep_rgb=True),
    }


@pytest.mark.parametrize("name", ["turned", "progressive", "cmyk", "4:1:1", "rgb"])
def test_all_others_take_the_long_way(name: str) -> None:
    assert plain_size(special()[name]) is None


def test_exif_still_turns_a_picture() -> None:
    (frame,) = read_picture(special()["turned"]).frames
    assert frame.image.shape == (50, 40, 3)


def test_no_cut_is_taken_for_a_whole_picture() -> None:
    whole = jpeg(picture(24, 24, 3))
    assert plain_size(whole) is not None
    for end in range(len(whole)):
        assert plain_size(whole[:end]) is None
        with pytest.raises(InputError):
            list(read_picture(whole[:end]).frames)


def test_damage_is_judged_as_before() -> None:
    whole = jpeg(picture(60, 60, 3), restart_marker_blocks=4)
    rng = np.random.default_rng(5)
    compared = 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(2, len(data), 3):
            data[at] = rng.integers(0, 256)
        size = plain_size(bytes(data))
        if size is None:
            continue
        try:
            expected: Any = pictures._picture(bytes(data), "JPEG", 1 << 30)[0]
        except (OSError, SyntaxError, InputError):
            expected = None
        try:
            found: Any = next(iter(read_picture(bytes(data)).frames)).image
        except InputError:
            found = None
        assert (found is None) == (expected is None)
        # On Arm the two decoders' SIMD code differs in what it makes of coefficients that no sound file has.
        same = np.array_equal if platform.machine() == "x86_64" else lambda one, other: one.shape == other.shape
        assert found is None or same(found, expected)
        compared += 1
    assert compared > 50


def test_a_size_is_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "image_from_plain_jpeg", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="megapixels"):
        read_picture(jpeg(picture(30, 40, 3)), max_pixels=1000)
