"""Pixels of TIFF pages whose samples are not plain 8 bit: integers and floats of 8 to 64 bits, chunky or planar.

Pillow cuts colour of 16 bits to 8, and decoders were seen to return whatever was in memory for planar colour. So only
the decompression is Pillow's (libtiff): a page's strips or tiles are handed to it as 8-bit grey, which is bytes in,
bytes out. What the bytes mean (byte order, predictor, tiles, planes) is done here with numpy, once for every depth.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import InputError
from gms_rt.scan import tiff
from gms_rt.scan.geometry import orient
from gms_rt.scan.pillow_limit import size_checked
from gms_rt.scan.tiff import TiffPage

_BYTE_STREAMS = (1, 5, 8, 32773, 32946, 34925, 50000)
_BATCH = 32 << 20  # bytes decoded at once
_PHOTOMETRIC = {
    4: "mask", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "colour filter", 32844: "LogL",
    32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_ASSOCIATED, _UNASSOCIATED = 1, 2
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def needs_samples(page: TiffPage) -> bool:
    """Whether the page is not what Pillow reads well: unsigned samples of 8 bits or fewer, of a known meaning."""
    bits, forms = page.values(tiff.BITS, (1,)), page.values(tiff.SAMPLE_FORMAT, (1,))
    if any(form not in (1, 4) for form in forms) or any(number not in (1, 2, 4, 8) for number in bits):
        return True
    if page.value(tiff.DEPTH, 1) != 1:
        return True
    if page.value(tiff.COMPRESSION, 1) not in _BYTE_STREAMS:
        return False
    grey = page.value(tiff.PHOTOMETRIC, 1) in (0, 1)
    extra = page.values(tiff.EXTRA_SAMPLES)
    return extra[:1] == (_ASSOCIATED,) or (grey and page.value(tiff.SAMPLES, 1) > 1 and extra[:1] != (_UNASSOCIATED,))


def image_from_page(data: bytes, page: TiffPage) -> tuple[NDArray[Any], str]:
    """Grey or RGB values of a page, the way they are to be seen, and a note on what was done to them."""
    dtype, bits = _sample_type(page)
    compression = page.value(tiff.COMPRESSION, 1)
    if compression not in _BYTE_STREAMS:
        name = tiff.COMPRESSIONS.get(compression, str(compression))
        raise InputError(f"is a TIFF of {bits} bits a sample compressed as {name}, which is not supported")
    values, note = _meaning(_samples(data, page, dtype, bits), page, bits)
    return orient(values, page.value(tiff.ORIENTATION, 1)), note


def _sample_type(page: TiffPage) -> tuple[np.dtype[Any], int]:
    count = page.value(tiff.SAMPLES, 1)
    bits, forms = set(page.values(tiff.BITS, (1,))), set(page.values(tiff.SAMPLE_FORMAT, (1,)))
    if not 1 <= count <= 64 or len(bits) != 1 or len(forms) != 1:
        raise InputError(f"is a TIFF of {count} samples a pixel of {sorted(bits)} bits, which is not supported")
    number, form = bits.pop(), forms.pop()
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(form)
    if kind is None:
        raise InputError("is a TIFF of complex numbers, which is not supported")
    whole = number in ((16, 32, 64) if kind == "f" else (8, 16, 32, 64))
    if not whole and not (kind == "u" and 1 <= number < 16):
        raise InputError(f"is a TIFF of {number} bits a sample (format {form}), which is not supported")
    return np.dtype(f"{kind}{number // 8 if whole else 2}"), number


def _samples(data: bytes, page: TiffPage, dtype: np.dtype[Any], bits: int) -> NDArray[Any]:
    """All samples of a page, height × width × samples."""
    width, height = page.size
    count = page.value(tiff.SAMPLES, 1)
    if page.value(tiff.DEPTH, 1) != 1 or page.value(tiff.TILE_DEPTH, 1) != 1:
        raise InputError("is a volume in one TIFF page, which is not supported", fix="save its planes as pages")
    tiled = tiff.TILE_OFFSETS in page.entries
    across = page.value(tiff.TILE_WIDTH, 0) if tiled else width
    down = page.value(tiff.TILE_HEIGHT, 0) if tiled else min(page.value(tiff.STRIP_ROWS, height) or height, height)
    if across < 1 or down < 1 or across > width + 65_535 or down > height + 65_535:
        raise InputError("is a damaged TIFF (tiles of an impossible size)")
    planes, each = (count, 1) if page.value(tiff.PLANAR, 1) == 2 else (1, count)
    columns, lines = -(-width // across), -(-height // down)
    row_bytes = -(-across * each * bits // 8)
    # Lengths that are not stated, or wrong, do not matter where nothing is compressed.
    parts = tiff.segments(data, page, row_bytes * down if page.value(tiff.COMPRESSION, 1) == 1 else 0)
    if len(parts) < planes * columns * lines:
        raise InputError(f"is a damaged TIFF ({len(parts)} of {planes * columns * lines} strips or tiles)")
    out = np.empty((height, width, count), dtype)
    wanted = parts[: planes * columns * lines]
    for number, block in enumerate(_blocks(wanted, page, (row_bytes, down, None if tiled else height, lines))):
        plane, place = divmod(number, columns * lines)
        top, left = place // columns * down, place % columns * across
        values = _block_values(block, page, (across, each), dtype, bits)
        target = out[top : top + down, left : left + across, plane * each : plane * each + each]
        target[:] = values[: target.shape[0], : target.shape[1]]
    return out


def _blocks(parts: list[bytes], page: TiffPage, shape: tuple[int, int, int | None, int]) -> Iterator[U8]:
    """The bytes of each strip or tile, rows × bytes of a row; the last strip of a plane is shorter."""
    row_bytes, down, height, lines = shape
    rows = [down if height is None else min(down, height - number % lines * down) for number in range(len(parts))]
    start = 0
    while start < len(parts):
        stop = start + 1
        # A short strip can only be the last of what is decoded at once.
        while stop < len(parts) and rows[stop - 1] == down and (stop - start + 1) * down * row_bytes <= _BATCH:
            stop += 1
        whole = _decompress(parts[start:stop], page, row_bytes, rows[start:stop])
        for number in range(start, stop):
            top = (number - start) * down
            yield whole[top : top + rows[number]]
        start = stop


def _decompress(parts: list[bytes], page: TiffPage, row_bytes: int, rows: list[int]) -> U8:
    compression, order = page.value(tiff.COMPRESSION, 1), page.value(tiff.FILL_ORDER, 1)
    height = sum(rows)
    if compression == 1:
        if any(len(part) < count * row_bytes for part, count in zip(parts, rows, strict=True)):
            raise InputError("is a truncated TIFF (pixels are missing)")
        cut = (part[: count * row_bytes] for part, count in zip(parts, rows, strict=True))
        stored = np.frombuffer(b"".join(cut), np.uint8).reshape(height, row_bytes)
        return _REVERSED[stored] if order == 2 else stored
    from PIL import TiffImagePlugin

    tags = {tiff.COMPRESSION: compression, tiff.FILL_ORDER: order}
    grey = TiffImagePlugin.TiffImageFile(io.BytesIO(tiff.strips_as_file(row_bytes, height, rows[0], tags, parts)))
    with size_checked(height * row_bytes):
        return np.asarray(grey, np.uint8)


def _block_values(block: U8, page: TiffPage, shape: tuple[int, int], dtype: np.dtype[Any], bits: int) -> NDArray[Any]:
    """Bytes of a strip or tile as rows × columns × samples, with the predictor undone."""
    (across, each), rows = shape, len(block)
    predictor = page.value(tiff.PREDICTOR, 1) if page.value(tiff.COMPRESSION, 1) not in (1, 32773) else 1
    if bits != dtype.itemsize * 8:
        if predictor != 1:
            raise InputError(f"is a TIFF of {bits} bits a sample with a predictor, which is not supported")
        wide = np.unpackbits(block, axis=1)[:, : across * each * bits].reshape(rows, across, each, bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
        return np.asarray(wide @ weights, dtype)
    if predictor == 3 and dtype.kind == "f":
        summed = np.cumsum(block.reshape(rows, -1, each), axis=1, dtype=np.uint8)
        ordered = summed.reshape(rows, dtype.itemsize, across * each).transpose(0, 2, 1)
        return np.ascontiguousarray(ordered).view(dtype.newbyteorder(">")).reshape(rows, across, each)
    values = np.ascontiguousarray(block).view(dtype.newbyteorder(page.order)).reshape(rows, across, each)
    if predictor == 1:
        return values
    if predictor != 2:
        raise InputError(f"is a TIFF with predictor {predictor}, which is not supported")
    integers = np.dtype(f"u{dtype.itemsize}")
    plain = values.astype(dtype).view(integers)
    return np.cumsum(plain, axis=1, dtype=integers).view(dtype)


def _meaning(samples: NDArray[Any], page: TiffPage, bits: int) -> tuple[NDArray[Any], str]:
    """Grey or RGB from a page's samples, and a note."""
    photometric, count = page.value(tiff.PHOTOMETRIC, 1), samples.shape[2]
    highest = _highest(samples.dtype, bits)
    if photometric == 3 and count == 1 and samples.dtype.kind == "u":
        table = np.array(page.values(tiff.PALETTE), np.uint16)
        if len(table) != 3 << bits:
            raise InputError("is a damaged TIFF (its palette has the wrong length)")
        return np.asarray(table.reshape(3, -1).T[samples[..., 0]] >> 8, np.uint8), ""
    if photometric == 5 and count >= 4 and samples.dtype.kind == "u":
        ink, key = highest - samples[..., :3].astype(np.float64), highest - samples[..., 3:4].astype(np.float64)
        return np.rint(ink * key / highest).astype(samples.dtype), ", from CMYK"
    if photometric not in (0, 1, 2):
        raise InputError(
            f"is a {bits}-bit TIFF in {_PHOTOMETRIC.get(photometric, photometric)} colour, which is not supported"
        )
    extra = page.values(tiff.EXTRA_SAMPLES)
    note = ""
    if photometric == 2:
        colours = 3
        if count < 3:
            raise InputError(f"is a damaged TIFF (colour of {count} samples)")
    elif count == 3 and not any(extra):
        colours, note = 3, ", its three samples taken as red, green and blue"
    else:
        colours = 1
        if count > 1 and (count != 2 or extra[:1] not in ((_ASSOCIATED,), (_UNASSOCIATED,))):
            raise InputError(
                f"has {count} samples per pixel that are not red, green and blue",
                fix="save the ones to look at as grey or RGB",
            )
    values = samples[..., :colours]
    if photometric == 0:
        values = -values if values.dtype.kind == "f" else (highest - values if values.dtype.kind == "u" else ~values)
        values = values.astype(samples.dtype)
    if count > colours and extra[:1] == (_UNASSOCIATED,):
        alpha = np.clip(samples[..., colours : colours + 1].astype(np.float64) / highest, 0, 1)
        if alpha.min() < 1:
            seen = values * alpha
            values, note = (
                (seen if values.dtype.kind == "f" else np.rint(seen)).astype(values.dtype),
                ", transparency over black",
            )
    return values if colours == 3 else values[..., 0], note


def _highest(dtype: np.dtype[Any], bits: int) -> int:
    return {"u": (1 << bits) - 1, "i": (1 << bits - 1) - 1}.get(dtype.kind, 1)
