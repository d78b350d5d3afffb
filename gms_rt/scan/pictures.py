"""PNG, JPEG, TIFF, BMP and WebP from bytes: 8 or 16 bit, grey, RGB, RGBA, palette, rotated by EXIF, many pages.

The format is taken from the first bytes, never from the name. Dimensions are checked in the header before anything is
decoded. Anything that is not whole is refused: a half-grey picture never passes as a scan.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import InputError, line_from_error
from gms_rt.scan import window
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size
from gms_rt.scan.geometry import orient

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}
_ORIENTATION, _BITS, _PHOTOMETRIC, _SUBFILE = 0x0112, 258, 262, 254
_MAX_PAGES = 100_000


def picture_format(start: bytes) -> str | None:
    """The picture format that the first bytes of a file announce.

    >>> picture_format(bytes.fromhex("ffd8ffe0"))
    'JPEG'
    """
    found = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    return None if found == "WebP" and start[8:12] != b"WEBP" else found


def read_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a picture; pages of a TIFF are frames, reduced copies inside one are not."""
    kind = picture_format(data[:16])
    if kind is None:
        raise InputError("is empty (0 bytes)" if not data else "is not a PNG, JPEG, TIFF, BMP or WebP picture")
    if kind == "PNG" and b"IEND" not in data[-4096:]:
        raise InputError("is a truncated PNG (its end is missing)")
    with _AsInputErrors(kind):
        if kind == "WebP":  # its decoder allocates the whole picture when it opens one
            check_size(*_webp_size(data), max_pixels)
        image = _open(data, kind)
        check_size(image.width, image.height, max_pixels)
        pages = _full_pages(image) if kind == "TIFF" else [0]
        return ScanFrames(len(pages) > 1, _frames(data, kind, pages, max_pixels))


def _open(data: bytes, kind: str) -> Any:
    # The plugin classes read the header only, and leave the judgement of its size to check_size.
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    classes: dict[str, Any] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }
    return classes[kind](io.BytesIO(data))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header of a whole WebP file."""
    if len(data) < 30 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise InputError("is a truncated WebP (its end is missing)")
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _full_pages(image: Any) -> list[int]:
    if image.n_frames > _MAX_PAGES:
        raise InputError(f"has {image.n_frames} pages, the limit is {_MAX_PAGES}")
    pages = []
    for page in range(image.n_frames):
        image.seek(page)
        if not int(image.tag_v2.get(_SUBFILE, 0)) & 1:
            pages.append(page)
    return pages or [0]


def _frames(data: bytes, kind: str, pages: list[int], max_pixels: int) -> Iterator[Frame]:
    for number, page in enumerate(pages, 1):
        with _AsInputErrors(kind):
            image = _open(data, kind)
            if page:
                image.seek(page)
            check_size(image.width, image.height, max_pixels)
            deep = _deep_colour(image, data, kind, page)
            values, note = (deep, "") if deep is not None else _values(image, kind)
            if values.dtype == np.uint8:
                pixels, choice = np.asarray(values, np.uint8), "8 bit as stored"
            else:
                pixels, choice = window.by_percentiles(values)
        yield Frame(np.ascontiguousarray(pixels), number, choice + note)


def _values(image: Any, kind: str) -> tuple[NDArray[Any], str]:
    """Pixels as stored, grey or RGB, turned as EXIF says."""
    inverted = kind == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == 0
    image.load()
    note = ""
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        values: NDArray[Any] = rgba[..., :3]
        alpha = rgba[..., 3:].astype(np.uint16)
        if alpha.min() < 255:
            values, note = ((values * alpha + 127) // 255).astype(np.uint8), ", transparency over black"
    elif image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
    elif image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        values = values.max(initial=65535) - values if inverted else values
    else:
        values = np.asarray(image.convert("RGB"))
    # Pillow turns a TIFF itself while loading and then drops the tag.
    return orient(values, _orientation(image)), note


def _deep_colour(image: Any, data: bytes, kind: str, page: int) -> NDArray[Any] | None:
    """Colour of 16 bits a channel, which Pillow would cut to 8; None for everything else."""
    if kind == "PNG":
        deep = data[24] == 16 and data[25] in (2, 4, 6)
    else:
        bits = image.tag_v2.get(_BITS, (8,)) if kind == "TIFF" else (8,)
        deep = len(bits) >= 3 and max(bits) == 16
    if not deep:
        return None
    image.load()  # raises where the file is not whole; OpenCV would fill the rest with grey
    buffer = np.frombuffer(data, np.uint8)
    flags = cv2.IMREAD_UNCHANGED
    if kind == "PNG":
        stored = cv2.imdecode(buffer, flags)
    else:
        whole, stack = cv2.imdecodemulti(buffer, flags)
        stored = stack[page] if whole and page < len(stack) else None
    if stored is None or stored.dtype != np.uint16:
        raise InputError(f"is a 16-bit {kind} of a kind that cannot be decoded")
    if stored.ndim == 3 and stored.shape[2] == 4:
        alpha = stored[..., 3:].astype(np.float32) / 65535
        stored = np.asarray(np.rint(stored[..., :3] * alpha), np.uint16)
    values: NDArray[Any] = stored[..., ::-1] if stored.ndim == 3 else stored
    return orient(values, _orientation(image)) if kind == "PNG" else values


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels, which are decoded by now
        return 1


class _AsInputErrors:
    """Decoders raise all kinds of exceptions on hostile bytes: each means that this picture is bad."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, InputError) or not isinstance(error, (Exception, Warning)):
            return
        if isinstance(error, MemoryError):
            raise InputError(f"needs more memory than there is to decode this {self.kind}") from error
        raise InputError(f"is a damaged {self.kind} ({line_from_error(error)})") from error
