"""Ordinary JPEG files, decoded in one call: half the time that Pillow takes for a small one.

Ordinary is: baseline, 8 bits, one scan, grey or YCbCr with usual subsampling, no EXIF and no Adobe block, and nothing
between the scan and the end marker, so that none is truncated. Of these OpenCV and Pillow decode the same pixels, with
the same library. Every other file is left to Pillow, and so is every complaint; of damage that both decode past, the
library itself writes a line to standard error.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from gms_rt.arrays import U8

_BASELINE, _EXTENDED = 0xC0, 0xC1  # start of frame, Huffman coded and sequential
_HUFFMAN, _SCAN, _QUANTISATION, _RESTART, _COMMENT = 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_APPLICATION = range(0xE0, 0xEE)  # without Adobe's, which says what the colours are
_PASSED = {_HUFFMAN, _QUANTISATION, _RESTART, _COMMENT, *_APPLICATION}
_SUBSAMPLING = (0x11, 0x21, 0x22)  # of brightness, across and down: 4:4:4, 4:2:2, 4:2:0
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}  # of grey: what is added to it says colour
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # in a scan: neither a stuffed byte nor a restart


def plain_size(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and number of colours of an ordinary JPEG, None of any other file."""
    size: tuple[int, int, int] | None = None
    seen: set[int] = set()
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = data[at + 2] << 8 | data[at + 3]
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return None
        at += 2 + length
        if marker == _SCAN:
            end = _MARKER.search(data, at)
            whole = end is not None and end[0] == b"\xff\xd9" and {_HUFFMAN, _QUANTISATION} <= seen
            return size if whole and size is not None and len(body) > 0 and body[0] == size[2] else None
        if marker in (_BASELINE, _EXTENDED) and size is None:
            size = _frame_size(body)
            if size is None:
                return None
        elif marker not in _PASSED or body.startswith(b"Exif"):
            return None
        seen.add(marker)
    return None


def _frame_size(body: bytes) -> tuple[int, int, int] | None:
    """Width, height and number of colours from the body of a frame's header."""
    if len(body) < 6 or body[0] != 8 or body[5] not in (1, 3) or len(body) != 6 + 3 * body[5]:
        return None
    sampling = [body[at] for at in range(7, len(body), 3)]
    if len(sampling) == 3 and (sampling[0] not in _SUBSAMPLING or sampling[1:] != [0x11, 0x11]):
        return None
    if len(sampling) == 3 and [body[6], body[9], body[12]] != [1, 2, 3]:
        return None
    height, width = body[1] << 8 | body[2], body[3] << 8 | body[4]
    return (width, height, body[5]) if width and height else None


def image_from_plain_jpeg(data: bytes, colours: int, divisor: int = 1) -> U8 | None:
    """The pixels of an ordinary JPEG, grey H×W or RGB H×W×3; None where OpenCV cannot decode it.

    With a divisor of 2, 4 or 8 it is decoded at that part of its size.
    """
    stored = np.frombuffer(data, np.uint8)
    how = cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[divisor]
    try:
        if colours == 1:
            image = cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE | how)
        elif hasattr(cv2, "IMREAD_COLOR_RGB"):  # OpenCV 4.11
            image = cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB | how)
        else:
            image = cv2.imdecode(stored, cv2.IMREAD_COLOR | how)
            image = None if image is None else image[..., ::-1]
    except cv2.error:
        return None
    return None if image is None else np.ascontiguousarray(image, np.uint8)
