"""TIFF files of every kind for tests: written here byte by byte, so that no reader's own writer is its judge."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """How the samples of a page are stored."""

    order: str = "<"
    big: bool = False
    planar: bool = False
    tile: int = 0  # side of the tiles, 0 for strips
    rows: int = 10  # of a strip
    deflate: bool = False
    predictor: int = 1


def page_entries(values: Any, layout: Layout, **tags: Any) -> tuple[dict[int, Any], list[bytes]]:
    """Tags and stored strips or tiles of rows × columns × samples."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, count = values.shape
    planes = [values[..., k : k + 1] for k in range(count)] if layout.planar else [values]
    parts = [_stored(block, layout) for plane in planes for block in _blocks(plane, layout)]
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {
        256: width, 257: height, 258: [values.dtype.itemsize * 8] * count, 259: 8 if layout.deflate else 1,
        262: 2 if count >= 3 else 1, 277: count, 284: 2 if layout.planar else 1, 317: layout.predictor,
        339: [form] * count,
    }  # fmt: skip
    entries |= {322: layout.tile, 323: layout.tile} if layout.tile else {278: layout.rows}
    return entries | {int(tag.lstrip("t")): value for tag, value in tags.items()}, parts


def tiff_file(*pages: tuple[dict[int, Any], list[bytes]], layout: Layout | None = None) -> bytes:
    """A file of pages made by `page_entries`."""
    layout = layout or Layout()
    order, size = layout.order, 8 if layout.big else 4
    word = order + ("Q" if layout.big else "I")
    mark = b"II" if order == "<" else b"MM"
    out = bytearray(mark + struct.pack(f"{order}H", 43 if layout.big else 42))
    out += struct.pack(f"{order}HH", 8, 0) if layout.big else b""
    link = len(out)
    out += bytes(size)
    for entries, parts in pages:
        offsets = []
        for part in parts:
            offsets.append(len(out))
            out += part
        tiled = 322 in entries
        places = {324 if tiled else 273: offsets, 325 if tiled else 279: [len(part) for part in parts]}
        fields = []
        for tag, value in sorted((entries | places).items()):
            numbers = value if isinstance(value, list) else [value]
            kind, code = (4, "I") if tag in (273, 279, 324, 325, 256, 257) else (3, "H")
            raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
            if len(raw) > size:
                out += b"\0" * (-len(out) % 2)
                place, raw = len(out), raw
                out += raw
                raw = struct.pack(word, place)
            fields.append(
                struct.pack(f"{order}HH", tag, kind) + struct.pack(word, len(numbers)) + raw.ljust(size, b"\0")
            )
        out += b"\0" * (-len(out) % 2)
        out[link : link + size] = struct.pack(word, len(out))
        out += struct.pack(order + ("Q" if layout.big else "H"), len(fields)) + b"".join(fields)
        link = len(out)
        out += bytes(size)
    return bytes(out)


def one_page(values: Any, layout: Layout | None = None, **tags: Any) -> bytes:
    """A TIFF of one page; tags are given as t262=0."""
    layout = layout or Layout()
    return tiff_file(page_entries(values, layout, **tags), layout=layout)


def _blocks(plane: Any, layout: Layout) -> list[Any]:
    height, width = plane.shape[:2]
    if not layout.tile:
        return [plane[top : top + layout.rows] for top in range(0, height, layout.rows)]
    side = layout.tile
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    return [
        padded[top : top + side, left : left + side] for top in range(0, height, side) for left in range(0, width, side)
    ]


def _stored(block: Any, layout: Layout) -> bytes:
    size = block.dtype.itemsize
    if layout.predictor == 2:
        whole = np.ascontiguousarray(block).view(f"u{size}")
        block = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    if layout.predictor == 3:  # the bytes of floats, most significant first, then differences
        rows, samples = len(block), block.shape[2]
        planes = block.astype(block.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1, size).transpose(0, 2, 1)
        flat = np.ascontiguousarray(planes).reshape(rows, -1, samples)
        block = np.diff(flat, axis=1, prepend=np.zeros_like(flat[:, :1]))
        data = block.tobytes()
    else:
        data = block.astype(block.dtype.newbyteorder(layout.order)).tobytes()
    return zlib.compress(data) if layout.deflate else data
