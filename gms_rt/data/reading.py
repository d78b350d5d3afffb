"""Pixels of a case: the image as `gms-rt infer` reads it, its masks merged into one of 0 and 255.

A mask file may be black and white, a palette of labels (each gland its own number) or a compressed grey picture. Where
8-bit values above 127 occur, the border is at 128; otherwise every value but 0 is foreground.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case
from gms_rt.errors import InputError, line_from_error
from gms_rt.scan import check_size
from gms_rt.scan.mask import FOREGROUND
from gms_rt.scan.reader import first_image


def read_mask(case: Case) -> U8:
    """The masks of a case merged: uint8 H×W of 0 and 255."""
    merged: NDArray[np.bool_] | None = None
    for path in case.masks:
        part = foreground(_read_stored(path))
        if merged is not None and part.shape != merged.shape:
            raise InputError(f"its masks have different sizes, {part.shape} and {merged.shape}", where=path)
        merged = part if merged is None else merged | part
    if merged is None:
        raise InputError("has no mask", where=case.image)
    return merged.astype(np.uint8) * np.uint8(255)


def read_case(case: Case) -> tuple[U8, U8]:
    """Image and mask of equal size."""
    image, mask = first_image(case.image), read_mask(case)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"its mask is {mask.shape[1]}x{mask.shape[0]}, the image {image.shape[1]}x{image.shape[0]}",
            where=case.image,
            fix="see gms-rt data check",
        )
    return image, mask


def foreground(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels of a stored mask are foreground.

    >>> foreground(np.array([[0, 3]], np.uint8)).tolist(), foreground(np.array([[9, 250]], np.uint8)).tolist()
    ([[False, True]], [[False, True]])
    """
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    grey = values.dtype == np.uint8 and values.size > 0 and int(values.max()) >= FOREGROUND
    result: NDArray[np.bool_] = values >= FOREGROUND if grey else values > 0
    return result


def _read_stored(path: Path) -> NDArray[Any]:
    """A mask's values as stored: labels of a palette are its indices, not its colours."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(_bytes(path))) as picture:
            check_size(picture.width, picture.height)
            turned = ImageOps.exif_transpose(picture)
            # Transparency says nothing about labels.
            plain = {"1": "L", "LA": "L", "RGBA": "RGB"}.get(turned.mode)
            return np.asarray(turned.convert(plain) if plain else turned)
    except InputError as error:
        raise InputError(error.what, where=path, fix=error.fix) from error
    except UnidentifiedImageError as error:
        raise InputError("is not a picture", where=path) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot be read ({line_from_error(error)})", where=path) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
