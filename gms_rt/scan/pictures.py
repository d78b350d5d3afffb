"""PNG, JPEG, TIFF, BMP and WebP from bytes: 8 or 16 bit, grey, RGB, RGBA, palette, rotated by EXIF, many pages.

The format is taken from the first bytes, never from the name. Dimensions are checked in the header before anything is
decoded. Anything that is not whole is refused: a half-grey picture never passes as a scan.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import InputError, line_from_error
from gms_rt.scan import window
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size
from gms_rt.scan.geometry import TURNED, orient
from gms_rt.scan.pillow_limit import size_checked
from gms_rt.scan.plain_jpeg import image_from_plain_jpeg, plain_size
from gms_rt.scan.tiff import COMPRESSION, COMPRESSIONS, PHOTOMETRIC, SUBSAMPLING, TiffPage, full_pages, page_as_file
from gms_rt.scan.tiff_samples import image_from_page, needs_samples

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
_ORIENTATION = 0x0112
_PNG_COLOURS = (2, 4, 6)  # colour types of RGB and of alpha
_OLD_JPEG = _YCBCR = 6  # a compression, a photometric interpretation
_PAGE_COMPRESSIONS = (1, 2, 3, 4, 5, _OLD_JPEG, 7, 8, 32771, 32773, 32946, 34925, 50000)  # of 8 bits: Pillow's libtiff


def picture_format(start: bytes) -> str | None:
    """The picture format that the first bytes of a file announce.

    >>> picture_format(bytes.fromhex("ffd8ffe0"))
    'JPEG'
    """
    found = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    return None if found == "WebP" and start[8:12] != b"WEBP" else found


def read_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, least_side: int = 0) -> ScanFrames:
    """Open a picture; pages of a TIFF are frames, reduced copies inside one are not.

    With `least_side` a JPEG is decoded at a half, quarter or eighth of its size while no side gets shorter than that.
    """
    kind = picture_format(data[:16])
    if kind is None:
        raise InputError("is empty (0 bytes)" if not data else "is not a PNG, JPEG, TIFF, BMP or WebP picture")
    if kind == "PNG" and b"IEND" not in data[-4096:]:
        raise InputError("is a truncated PNG (its end is missing)")
    plain = plain_size(data) if kind == "JPEG" else None
    if plain is not None:
        check_size(plain[0], plain[1], max_pixels)
        return ScanFrames(False, _plain_frame(data, plain, max_pixels, least_side))
    with _AsInputErrors(kind):
        if kind == "WebP":  # its decoder allocates the whole picture when it opens one
            check_size(*_webp_size(data), max_pixels)
        pages = full_pages(data) if kind == "TIFF" else [None]
        if kind != "TIFF":
            image = _open(data, kind)
            check_size(image.width, image.height, max_pixels)
        if kind == "JPEG" and (divisor := jpeg_divisor(image.width, image.height, least_side)) > 1:
            return ScanFrames(False, _reduced_frame(image, divisor))
        return ScanFrames(len(pages) > 1, _frames(data, kind, pages, max_pixels))


def jpeg_divisor(width: int, height: int, least_side: int) -> int:
    """By how much a JPEG can be decoded smaller: 8, 4, 2 or 1.

    >>> [jpeg_divisor(4000, 3000, 700), jpeg_divisor(4000, 3000, 0)]
    [4, 1]
    """
    return next((by for by in (8, 4, 2) if 0 < least_side <= min(width, height) // by), 1)


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
    width, height = _webp_size(data) if kind == "WebP" else (0, 0)  # the others check when they load, if at all
    with size_checked(width * height):
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


def _plain_frame(data: bytes, size: tuple[int, int, int], max_pixels: int, least_side: int) -> Iterator[Frame]:
    width, height, colours = size
    divisor = jpeg_divisor(width, height, least_side)
    image = image_from_plain_jpeg(data, colours, divisor)
    if image is not None:
        yield _whole_or_reduced(image, "", (height, width), divisor)
    else:
        yield from _frames(data, "JPEG", [None], max_pixels)


def _reduced_frame(image: Any, divisor: int) -> Iterator[Frame]:
    """A JPEG that Pillow has opened, decoded at a part of its size."""
    with _AsInputErrors("JPEG"):
        size = (image.height, image.width)
        image.draft(None, (image.width // divisor, image.height // divisor))
        pixels, note = _values(image)
        if _orientation(image) in TURNED:
            size = size[::-1]
    yield _whole_or_reduced(np.ascontiguousarray(pixels, np.uint8), note, size, divisor)


def _whole_or_reduced(image: U8, note: str, size: tuple[int, int], divisor: int) -> Frame:
    if divisor == 1:
        return Frame(image, 1, "8 bit as stored" + note)
    return Frame(image, 1, f"8 bit as stored{note}, decoded at 1/{divisor}", source_size=size)


def _frames(data: bytes, kind: str, pages: Sequence[TiffPage | None], max_pixels: int) -> Iterator[Frame]:
    for number, page in enumerate(pages, 1):
        with _AsInputErrors(kind):
            values, note = _picture(data, kind, max_pixels) if page is None else _page(data, page, max_pixels)
            if values.dtype == np.uint8:
                pixels, choice = np.asarray(values, np.uint8), "8 bit as stored"
            else:
                pixels, choice = window.by_percentiles(values)
        yield Frame(np.ascontiguousarray(pixels), number, choice + note)


def _picture(data: bytes, kind: str, max_pixels: int) -> tuple[NDArray[Any], str]:
    image = _open(data, kind)
    check_size(image.width, image.height, max_pixels)
    if kind == "PNG" and data[24] == 16 and data[25] in _PNG_COLOURS:
        return _deep_png(image, data), ""
    return _values(image)


def _page(data: bytes, page: TiffPage, max_pixels: int) -> tuple[NDArray[Any], str]:
    check_size(*page.size, max_pixels)
    if needs_samples(page):
        return image_from_page(data, page)
    compression = page.value(COMPRESSION, 1)
    if compression not in _PAGE_COMPRESSIONS:
        name = COMPRESSIONS.get(compression, str(compression))
        raise InputError(f"is a TIFF compressed as {name}, which is not supported")
    if page.value(PHOTOMETRIC, 1) == _YCBCR and compression == 1 and page.values(SUBSAMPLING, (2, 2)) != (1, 1):
        raise InputError("is a TIFF in uncompressed YCbCr with fewer colour samples, which is not supported")
    first = page.number == 0 and not (page.big and page.order == ">")  # Pillow reads BigTIFF in one byte order
    # Old JPEG has pointers into the file among its tags, so it stays where it is.
    image = _open(data if first or compression == _OLD_JPEG else page_as_file(data, page), "TIFF")
    if not first and compression == _OLD_JPEG:
        image.seek(page.number)
    return _values(image)


def _values(image: Any) -> tuple[NDArray[Any], str]:
    """Pixels as stored, grey or RGB, turned as EXIF says."""
    with size_checked(image.width * image.height):
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
    else:
        values = np.asarray(image.convert("RGB"))
    # Pillow turns a TIFF itself while loading and then drops the tag.
    return orient(values, _orientation(image)), note


def _deep_png(image: Any, data: bytes) -> NDArray[Any]:
    """Colour of 16 bits a channel, which Pillow would cut to 8."""
    image.load()  # raises where the file is not whole; OpenCV would fill the rest with grey
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise InputError("is a 16-bit PNG of a kind that cannot be decoded")
    if stored.ndim == 3 and stored.shape[2] == 4:
        alpha = stored[..., 3:].astype(np.float32) / 65535
        stored = np.asarray(np.rint(stored[..., :3] * alpha), np.uint16)
    return orient(stored[..., ::-1] if stored.ndim == 3 else stored, _orientation(image))


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
        text = line_from_error(error)
        if re.search(r"\bunsupported\b|not support", text, re.IGNORECASE):
            raise InputError(f"is a {self.kind} of a kind that is not supported ({text})") from error
        raise InputError(f"is a damaged {self.kind} ({text})") from error
