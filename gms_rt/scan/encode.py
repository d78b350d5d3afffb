"""Pixels as the bytes of a picture file."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError


def encode_picture(ending: str, image: U8, options: Sequence[int] = ()) -> bytes:
    """A grey or RGB image as a file of this ending, such as ".png"; `options` are OpenCV's for writing."""
    stored = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    done, data = cv2.imencode(ending, stored, list(options))
    if not done:
        raise GmsError(f"OpenCV cannot encode {image.shape[1]}×{image.shape[0]} pixels as {ending}")
    return bytes(data.tobytes())
