"""The C library's resizing against the package's, which is OpenCV's: the same bytes and the same floats."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.native_build import NATIVE, compiler, run

from gms_rt.arrays import F32, U8
from gms_rt.runtime.library import load_library
from gms_rt.scan.geometry import resize_image, resize_probability, rgb
from gms_rt.scan.mask import mask_from_probability, resize_mask

# Elsewhere OpenCV computes in another order, and the package asks for its bit-exact bilinear form (scan/geometry.py).
# The C library gives on every machine what OpenCV gives on x86-64 (see the sums below).
EXACT = platform.machine() == "x86_64"


def call(name: str, source: U8, *arguments: object, to: np.ndarray) -> None:
    """Call a resizing function of the library; `to` is the result, in its shape."""
    function = getattr(load_library(), name)
    function.restype = ctypes.c_int32
    sizes = [ctypes.c_uint32(size) for size in source.shape[:2]]
    target = [ctypes.c_uint32(size) for size in to.shape[:2]]
    data = [array.ctypes.data_as(ctypes.c_void_p) for array in (source, to)]
    assert function(data[0], *sizes, *arguments, data[1], *target) == 0, load_library().gmsrt_last_error()


def native_image(image: U8, height: int, width: int) -> U8:
    result = np.full((height, width, *image.shape[2:]), 0xA5, np.uint8)
    call("gmsrt_resize_image", image, ctypes.c_uint32(3 if image.ndim == 3 else 1), to=result)
    return result


def native_probability(levels: U8, height: int, width: int) -> F32:
    result = np.full((height, width), np.nan, np.float32)
    call("gmsrt_resize_probability", levels, to=result)
    return result


def sizes(seed: int, count: int, most: int) -> list[tuple[int, int, int, int]]:
    """Source and result: shrinking, growing, both at once, whole multiples, single rows and columns, and no change."""
    dice = np.random.default_rng(seed)
    found = []
    for number in range(count):
        height, width, to_height, to_width = (int(side) for side in dice.integers(1, most, 4))
        if number % 5 == 0:
            height, width = to_height * int(dice.integers(1, 5)), to_width * int(dice.integers(1, 5))
        if number % 7 == 0:
            to_height = height
        if number % 11 == 0:
            height, width = (1, width) if number % 2 else (height, 1)
        found.append((height, width, to_height, to_width))
    return found


def same(found: np.ndarray, expected: np.ndarray) -> None:
    if EXACT:
        np.testing.assert_array_equal(found, expected)
    elif expected.dtype == np.uint8:
        assert np.abs(found.astype(int) - expected).max() <= 2
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("seed", "count", "most"), [(1, 600, 14), (2, 200, 90), (3, 6, 900)])
def test_images(seed: int, count: int, most: int) -> None:
    dice = np.random.default_rng(seed)
    for height, width, to_height, to_width in sizes(seed, count, most):
        for channels in (1, 3):
            image = dice.integers(0, 256, (height, width, channels), dtype=np.uint8)
            if dice.random() < 0.3:
                image = (image // 128 * 255).astype(np.uint8)
            image = np.ascontiguousarray(image[..., 0]) if channels == 1 else image
            found = native_image(image, to_height, to_width)
            same(found, resize_image(image, to_height, to_width))
            if channels == 1:  # as a model gets it: the package repeats the channel first
                same(rgb(found), resize_image(rgb(image), to_height, to_width))


@pytest.mark.parametrize(("seed", "count", "most"), [(4, 600, 14), (5, 200, 90), (6, 6, 900)])
def test_probabilities_and_their_masks(seed: int, count: int, most: int) -> None:
    dice = np.random.default_rng(seed)
    for number, (height, width, to_height, to_width) in enumerate(sizes(seed, count, most)):
        levels = dice.integers(0, 256, (height, width), dtype=np.uint8)
        if number % 2:  # where every rounding counts: all pixels next to the threshold
            levels = dice.choice(np.array([127, 128], np.uint8), (height, width))
        expected = resize_probability(levels, to_height, to_width)
        same(native_probability(levels, to_height, to_width), expected)
        for threshold in (0.5, 0.25, 1 / 3):
            mask = np.full((to_height, to_width), 7, np.uint8)
            call("gmsrt_mask_from_levels", levels, ctypes.c_double(threshold), to=mask)
            if EXACT:
                np.testing.assert_array_equal(mask, mask_from_probability(expected, threshold))
            else:
                assert set(np.unique(mask)) <= {0, 255}


def test_masks() -> None:
    dice = np.random.default_rng(7)
    for height, width, to_height, to_width in sizes(7, 200, 60):
        mask = (dice.integers(0, 2, (height, width)) * 255).astype(np.uint8)
        found = np.full((to_height, to_width), 7, np.uint8)
        call("gmsrt_resize_mask", mask, to=found)
        expected = resize_mask(mask, to_height, to_width)
        if EXACT:
            np.testing.assert_array_equal(found, expected)
        else:
            assert (found != expected).mean() < 0.01 or found.size < 5000


def test_what_has_no_size_is_refused() -> None:
    library, room = load_library(), np.zeros(64, np.uint8)
    data, none = room.ctypes.data_as(ctypes.c_void_p), ctypes.c_void_p()
    resize, levels = library.gmsrt_resize_image, library.gmsrt_mask_from_levels
    good = [data, 2, 2, 1, data, 1, 1]
    for place, wrong in ((0, none), (1, 0), (2, 70000), (3, 2), (3, 0), (4, none), (5, 0), (6, 65536)):
        arguments = [*good[:place], wrong, *good[place + 1 :]]
        assert resize(*[ctypes.c_uint32(a) if isinstance(a, int) else a for a in arguments]) == 1
        assert library.gmsrt_last_error()
    for threshold in (0.0, 1.0, -1.0, float("nan")):
        two, one = ctypes.c_uint32(2), ctypes.c_uint32(1)
        assert levels(data, two, two, ctypes.c_double(threshold), data, one, one) == 1
        assert b"threshold" in library.gmsrt_last_error()


def sums(found: str, folder: Path, *options: str, emulator: tuple[str, ...] = ()) -> list[str]:
    """What the library's code makes of random images, as this compiler builds it."""
    sources = ["tests/resize_sums.c", *(f"src/{name}.c" for name in ("resize", "sha256", "sha256_x86", "sha256_arm"))]
    program = folder / "sums"
    flags = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", f"-I{NATIVE / 'include'}", *options]
    run([found, *flags, *(str(NATIVE / source) for source in sources), "-lm", "-static", "-o", str(program)])
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_processor_computes_the_same(tmp_path: Path) -> None:
    """64-bit Arm fuses products and sums unless it is told not to, which the build does."""
    cross, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if cross is None or emulator is None:
        pytest.skip("no cross compiler or no emulator for 64-bit Arm")
    here = sums(compiler(), tmp_path, "-O2", "-ffp-contract=off")
    assert len(set(here)) == 300
    assert sums(cross, tmp_path, "-O2", "-ffp-contract=off", emulator=(emulator,)) == here
    assert sums(cross, tmp_path, "-O2", "-ffp-contract=fast", emulator=(emulator,)) != here
