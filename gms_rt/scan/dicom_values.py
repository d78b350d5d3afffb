"""Stored DICOM values as an 8-bit image to look at, and the choice made as text.

The order is DICOM's: modality (rescale or LUT), values of interest (LUT, else the first window, else percentiles),
then MONOCHROME1 is inverted. Eight-bit grey without any of these tags stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import InputError
from gms_rt.scan import window
from gms_rt.scan.dicom_spacing import functional_group


def image_from_stored(stored: NDArray[Any], header: Any, number: int) -> tuple[U8, str]:
    """Frame `number` as uint8, grey or RGB, and how its values became 8 bit."""
    photometric = str(header.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return _palette(stored, header)
    if stored.ndim == 3:
        if stored.dtype == np.uint8:
            return np.asarray(stored, np.uint8), f"8 bit as stored, {photometric}"
        image, choice = window.by_percentiles(stored)
        return image, f"{choice}, {photometric}"
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"has photometric interpretation {photometric!r}, which is not supported")
    image, choice = _grey(stored, header, number)
    return (255 - image, f"{choice}, inverted (MONOCHROME1)") if photometric == "MONOCHROME1" else (image, choice)


def _palette(stored: NDArray[Any], header: Any) -> tuple[U8, str]:
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(stored, header)[..., :3]
    if colours.dtype == np.uint16:  # entries of 16 bits use the whole range
        colours = colours >> 8
    return np.asarray(colours, np.uint8), "palette"


def _grey(stored: NDArray[Any], header: Any, number: int) -> tuple[U8, str]:
    from pydicom.pixels import apply_modality_lut, apply_voi

    transform = functional_group(header, number, "PixelValueTransformationSequence")
    interest = functional_group(header, number, "FrameVOILUTSequence") or header
    real, rescale = _modality(stored, transform or header, apply_modality_lut)
    gaps = window.gaps_text(real)
    if interest.get("VOILUTSequence"):
        table = interest.VOILUTSequence[0]
        bits = int(table.LUTDescriptor[2])
        picked = apply_voi(window.fill_gaps(real).astype(np.int64), interest)
        return window.to_8bit(picked, 0, 2**bits - 1), f"VOI LUT of the dataset{gaps}"
    asked = _window(interest)
    if asked is not None:
        return _apply_window(
            window.fill_gaps(real), *asked
        ), f"window {asked[0]:g}/{asked[1]:g} {asked[2]} of the dataset{gaps}"
    if stored.dtype == np.uint8 and int(header.get("BitsStored", 8)) == 8 and rescale == (1.0, 0.0):
        return np.asarray(stored, np.uint8), "8 bit as stored"
    padding = header.get("PixelPaddingValue")
    ignore = float(padding) * rescale[0] + rescale[1] if padding is not None and rescale else None
    return window.by_percentiles(real, ignore)


def _modality(stored: NDArray[Any], holder: Any, apply_lut: Any) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Values in the modality's units, with slope and intercept where the step is linear."""
    if holder.get("ModalityLUTSequence"):
        return apply_lut(stored, holder), None
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    pair = float(1 if slope is None else slope), float(0 if intercept is None else intercept)
    if pair == (1.0, 0.0):
        return stored, pair
    if not all(map(math.isfinite, pair)) or pair[0] == 0:
        raise InputError(f"has an impossible rescale (slope {pair[0]:g}, intercept {pair[1]:g})")
    return stored.astype(np.float32) * np.float32(pair[0]) + np.float32(pair[1]), pair


def _window(holder: Any) -> tuple[float, float, str] | None:
    centre, width = _first(holder.get("WindowCenter")), _first(holder.get("WindowWidth"))
    function = str(holder.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or not math.isfinite(centre) or not math.isfinite(width):
        return None
    # The standard asks for a width of at least 1 (LINEAR) or above 0: anything else is not a window.
    if width < (1 if function == "LINEAR" else 1e-12) or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    return centre, width, function


def _first(value: Any) -> float | None:
    """The first of one or many decimal strings."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return float(value)
    return float(value[0]) if len(value) else None


def _apply_window(real: NDArray[Any], centre: float, width: float, function: str) -> U8:
    if function == "SIGMOID":
        exponent = np.clip(-4 * (real.astype(np.float32) - centre) / width, -80, 80)
        return np.asarray(np.rint(255 / (1 + np.exp(exponent))), np.uint8)
    if function == "LINEAR_EXACT":
        return window.to_8bit(real, centre - width / 2, centre + width / 2)
    if width == 1:  # a step, which a slope cannot express
        return np.where(real > centre - 0.5, 255, 0).astype(np.uint8)
    return window.to_8bit(real, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
