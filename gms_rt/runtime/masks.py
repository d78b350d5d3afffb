"""A mask's measures, its PNG and the model's confidence, by the C library: each is one call, without the GIL."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import InputError, UsageError
from gms_rt.runtime import library as c


@dataclass(frozen=True)
class MaskMeasures:
    """Size, place and number of regions of a mask; foreground is every pixel that is not 0."""

    area: int
    regions: int  # pixels that touch at a corner are of one
    box: tuple[int, int, int, int]  # x, y, width, height; all 0 for an empty mask
    centre: tuple[float, float]  # x, y; the centres of pixels are whole numbers


def measures_of_mask(mask: U8) -> MaskMeasures:
    """Measure an H×W mask.

    >>> measures_of_mask(np.array([[0, 255, 0], [255, 0, 0]], np.uint8))
    MaskMeasures(area=2, regions=1, box=(0, 0, 2, 2), centre=(0.5, 0.5))
    """
    library = c.load_library()
    _check_mask(mask)
    mask, found = np.ascontiguousarray(mask), c.Measures()
    height, width = mask.shape
    status = library.gmsrt_measure_mask(mask.ctypes.data, height, width, ctypes.byref(found), ctypes.sizeof(found))
    c.check_status(library, status)
    box = (found.x, found.y, found.width, found.height)
    return MaskMeasures(found.area, found.regions, box, (found.centre_x, found.centre_y))


def confidence_of_levels(levels: U8, threshold: float) -> float:
    """The mean distance of probabilities (0-255) from the threshold; gms_rt.h says over which pixels.

    >>> confidence_of_levels(np.array([[0, 255]], np.uint8), 0.5)
    1.0
    """
    library = c.load_library()
    levels, found = np.ascontiguousarray(levels, np.uint8), ctypes.c_double()
    c.check_status(library, library.gmsrt_confidence(levels.ctypes.data, levels.size, threshold, ctypes.byref(found)))
    return found.value


def png_of_mask(mask: U8) -> bytes:
    """An H×W mask as PNG, 8-bit grey: the same bytes for the same pixels, on every machine."""
    library = c.load_library()
    _check_mask(mask)
    height, width = mask.shape
    room = library.gmsrt_png_room(height, width)
    if room == 0:
        raise InputError(f"a mask of {width}×{height} pixels is too large for a PNG")
    mask, png, size = np.ascontiguousarray(mask), np.empty(room, np.uint8), ctypes.c_size_t()
    status = library.gmsrt_png_from_mask(mask.ctypes.data, height, width, png.ctypes.data, room, ctypes.byref(size))
    c.check_status(library, status)
    return png[: size.value].tobytes()


def _check_mask(mask: U8) -> None:
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise UsageError(f"a mask of type {mask.dtype} and shape {mask.shape} is not uint8, H×W")
